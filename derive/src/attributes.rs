//! What stands in `#[keybed(…)]`, checked: ids are there, occur once, and are not retired.

use syn::{
    Attribute, Error, Expr, Ident, LitInt, LitStr, Path, Result, Token, parse::Parse, spanned::Spanned,
};

/// Attributes of one item: a type, a variant or a field.
#[derive(Default)]
pub(crate) struct Attributes {
    pub(crate) id: Option<u32>,
    pub(crate) name: Option<String>,
    pub(crate) krate: Option<Path>,
    pub(crate) retired: Vec<u32>,
    /// `default`, with the expression if there is one.
    pub(crate) default: Option<Option<Expr>>,
}

impl Attributes {
    /// Reads all `#[keybed(…)]` of an item; `allowed` are the words that mean something there.
    pub(crate) fn read(attributes: &[Attribute], allowed: &[&str]) -> Result<Self> {
        let mut read = Attributes::default();
        for attribute in attributes.iter().filter(|a| a.path().is_ident("keybed")) {
            attribute.parse_nested_meta(|meta| {
                let word = meta.path.get_ident().map(Ident::to_string).unwrap_or_default();
                if !allowed.contains(&word.as_str()) {
                    return Err(meta.error(format!("here stand {}", allowed.join(", "))));
                }
                let again = || Error::new(meta.path.span(), format!("`{word}` is said twice"));
                match word.as_str() {
                    "id" if read.id.is_some() => return Err(again()),
                    "id" => read.id = Some(meta.value()?.parse::<LitInt>()?.base10_parse()?),
                    "name" if read.name.is_some() => return Err(again()),
                    "name" => read.name = Some(meta.value()?.parse::<LitStr>()?.value()),
                    "crate" => read.krate = Some(meta.value()?.call(Path::parse_mod_style)?),
                    "default" if read.default.is_some() => return Err(again()),
                    "default" if meta.input.peek(Token![=]) => {
                        read.default = Some(Some(meta.value()?.parse()?));
                    }
                    "default" => read.default = Some(None),
                    _ => {
                        let list;
                        syn::parenthesized!(list in meta.input);
                        for id in list.parse_terminated(LitInt::parse, Token![,])? {
                            let id: u32 = id.base10_parse()?;
                            if read.retired.contains(&id) {
                                return Err(meta.error(format!("the id {id} is retired twice")));
                            }
                            read.retired.push(id);
                        }
                    }
                }
                Ok(())
            })?;
        }
        Ok(read)
    }

    /// The id of a field or variant; `seen` are those before it, `retired` those that are gone.
    pub(crate) fn id_of(&self, item: &impl Spanned, seen: &[u32], retired: &[u32]) -> Result<u32> {
        let error = |message: String| Error::new(item.span(), message);
        let free = || {
            (1..)
                .find(|id| !seen.contains(id) && !retired.contains(id))
                .unwrap_or(1)
        };
        match self.id {
            None => Err(error(
                "lacks an id: write #[keybed(id = …)] with a number that was never used in this type".into(),
            )),
            Some(id) if seen.contains(&id) => {
                Err(error(format!("the id {id} occurs twice; {} is free", free())))
            }
            Some(id) if retired.contains(&id) => Err(error(format!(
                "the id {id} is retired: entries may still hold what it stood for; {} is free",
                free()
            ))),
            Some(id) => Ok(id),
        }
    }
}
