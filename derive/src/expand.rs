//! The implementations.

use crate::attributes::Attributes;
use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote};
use syn::{Data, DeriveInput, Error, Expr, Fields, Member, Path, Result, Type, ext::IdentExt};

/// Which trait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Value,
    Key,
}

/// Names of the trait and its functions.
struct Words {
    state: Path,
    krate: TokenStream,
    encode: Ident,
    decode: Ident,
    schema: Ident,
}

struct Field<'a> {
    member: Member,
    name: String,
    id: u32,
    ty: &'a Type,
    default: Option<Option<Expr>>,
}

/// Fields of a struct or variant, and the ids that are gone.
struct Content<'a> {
    fields: Vec<Field<'a>>,
    retired: Vec<u32>,
}

struct Variant<'a> {
    ident: &'a Ident,
    id: u32,
    content: Content<'a>,
}

/// The implementation for a type.
pub(crate) fn expand(item: &DeriveInput, target: Target) -> Result<TokenStream> {
    let attributes = Attributes::read(&item.attrs, &["retired", "name", "crate"])?;
    let state = match attributes.krate.clone() {
        Some(path) => path,
        None => syn::parse_str("::keybed::state")?,
    };
    let word = |value: &str, key: &str| match target {
        Target::Value => Ident::new(value, Span::call_site()),
        Target::Key => Ident::new(key, Span::call_site()),
    };
    let codec = word("Codec", "KeyCodec");
    let words = Words {
        krate: quote!(#state::#codec),
        encode: word("encode", "encode_key"),
        decode: word("decode", "decode_key"),
        schema: word("schema", "key_schema"),
        state,
    };
    let name = attributes.name.unwrap_or_else(|| item.ident.unraw().to_string());
    let [encode, decode, schema] = match &item.data {
        Data::Struct(data) => {
            let content = Content::read(&data.fields, attributes.retired)?;
            words.record(&name, &content)
        }
        Data::Enum(data) => {
            let variants = variants(data, item, &attributes.retired, target)?;
            words.choice(&name, &variants, &attributes.retired, target)
        }
        Data::Union(_) => {
            return Err(Error::new_spanned(
                &item.ident,
                "a union does not tell what it holds",
            ));
        }
    };
    let mut generics = item.generics.clone();
    let bound = &words.krate;
    let parameters: Vec<_> = generics
        .type_params()
        .map(|parameter| parameter.ident.clone())
        .collect();
    if !parameters.is_empty() {
        let clause = generics.make_where_clause();
        for parameter in parameters {
            clause.predicates.push(syn::parse2(quote!(#parameter: #bound))?);
        }
    }
    let (before, of, bounds) = generics.split_for_impl();
    let (ident, state) = (&item.ident, &words.state);
    let (codec, format) = (&words.krate, quote!(#state::codec::derived::keybed_format));
    let (encode_fn, decode_fn, schema_fn) = (&words.encode, &words.decode, &words.schema);
    Ok(quote! {
        #[automatically_derived]
        impl #before #codec for #ident #of #bounds {
            fn #encode_fn(&self, out: &mut #format::Sink) {
                #encode
            }

            fn #decode_fn(input: &mut #format::Cursor<'_>) -> #format::Result<Self> {
                #decode
            }

            fn #schema_fn() -> #state::codec::derived::schema::Schema {
                #state::codec::derived::nested(|| #schema)
            }
        }
    })
}

impl<'a> Content<'a> {
    fn read(fields: &'a Fields, mut retired: Vec<u32>) -> Result<Self> {
        let mut read: Vec<Field<'a>> = Vec::new();
        retired.sort_unstable();
        for (index, field) in fields.iter().enumerate() {
            let attributes = Attributes::read(&field.attrs, &["id", "default"])?;
            let seen: Vec<_> = read.iter().map(|field| field.id).collect();
            let id = match &field.ident {
                Some(ident) => attributes.id_of(ident, &seen, &retired)?,
                None => attributes.id_of(&field.ty, &seen, &retired)?,
            };
            read.push(Field {
                member: field.ident.clone().map_or(Member::from(index), Member::from),
                name: field
                    .ident
                    .as_ref()
                    .map_or(index.to_string(), |ident| ident.unraw().to_string()),
                id,
                ty: &field.ty,
                default: attributes.default,
            });
        }
        Ok(Content {
            fields: read,
            retired,
        })
    }
}

fn variants<'a>(
    data: &'a syn::DataEnum,
    item: &DeriveInput,
    retired: &[u32],
    target: Target,
) -> Result<Vec<Variant<'a>>> {
    let mut read: Vec<Variant<'a>> = Vec::new();
    for variant in &data.variants {
        let attributes = Attributes::read(&variant.attrs, &["id", "retired"])?;
        let seen: Vec<_> = read.iter().map(|variant| variant.id).collect();
        let id = attributes.id_of(&variant.ident, &seen, retired)?;
        if target == Target::Key && (id > 255 || seen.last().is_some_and(|last| *last > id)) {
            let message =
                "ids of variants must ascend and be below 256, so that keys sort as their values do";
            return Err(Error::new_spanned(&variant.ident, message));
        }
        let content = Content::read(&variant.fields, attributes.retired)?;
        read.push(Variant {
            ident: &variant.ident,
            id,
            content,
        });
    }
    match read.is_empty() {
        true => Err(Error::new_spanned(
            &item.ident,
            "an enum without variants has no values",
        )),
        false => Ok(read),
    }
}

impl Words {
    /// Bodies of encode, decode and schema for a struct.
    fn record(&self, name: &str, content: &Content<'_>) -> [TokenStream; 3] {
        let (codec, encode) = (&self.krate, &self.encode);
        let members = content.fields.iter().map(|field| &field.member);
        let state = &self.state;
        let fields = self.schema_of(name, content);
        [
            quote!(#(#codec::#encode(&self.#members, out);)*),
            {
                let fields = self.decode_fields(content);
                quote!(::core::result::Result::Ok(Self { #fields }))
            },
            quote!(#state::codec::derived::schema::Schema::Struct(#fields)),
        ]
    }

    /// Bodies of encode, decode and schema for an enum.
    fn choice(
        &self,
        name: &str,
        variants: &[Variant<'_>],
        retired: &[u32],
        target: Target,
    ) -> [TokenStream; 3] {
        let (codec, encode, state) = (&self.krate, &self.encode, &self.state);
        let derived = quote!(#state::codec::derived);
        let (write, read) = match target {
            Target::Value => (format_ident!("varint"), quote!(input.varint()?)),
            Target::Key => (
                format_ident!("u8"),
                quote!(::core::primitive::u64::from(input.u8()?)),
            ),
        };
        let encoded = variants.iter().map(|variant| {
            let (ident, members) = (
                variant.ident,
                variant.content.fields.iter().map(|field| &field.member),
            );
            let names: Vec<_> = (0..variant.content.fields.len())
                .map(|n| format_ident!("field_{n}"))
                .collect();
            let id = match target {
                Target::Value => u64::from(variant.id).into_token_stream(),
                Target::Key => (variant.id as u8).into_token_stream(), // checked to be below 256
            };
            quote! {
                Self::#ident { #(#members: #names),* } => {
                    out.#write(#id);
                    #(#codec::#encode(#names, out);)*
                }
            }
        });
        let decoded = variants.iter().map(|variant| {
            let (id, ident) = (u64::from(variant.id), variant.ident);
            let fields = self.decode_fields(&variant.content);
            quote!(#id => ::core::result::Result::Ok(Self::#ident { #fields }),)
        });
        let described = variants.iter().map(|variant| {
            let (id, name) = (variant.id, variant.ident.unraw().to_string());
            let content = self.schema_of("", &variant.content);
            quote!(.variant(#id, #name, #content))
        });
        [
            quote!(match self { #(#encoded)* }),
            quote! {
                let at = ::core::clone::Clone::clone(&*input);
                match #read {
                    #(#decoded)*
                    unknown => ::core::result::Result::Err(#derived::unknown_variant(&at, unknown)),
                }
            },
            quote! {
                #derived::schema::Schema::Enum(
                    #derived::schema::Choice::new(#name) #(#described)* .retire(&[#(#retired),*])
                )
            },
        ]
    }

    fn decode_fields(&self, content: &Content<'_>) -> TokenStream {
        let (codec, decode) = (&self.krate, &self.decode);
        let members = content.fields.iter().map(|field| &field.member);
        quote!(#(#members: #codec::#decode(input)?,)*)
    }

    fn schema_of(&self, name: &str, content: &Content<'_>) -> TokenStream {
        let (codec, encode, schema, state) = (&self.krate, &self.encode, &self.schema, &self.state);
        let derived = quote!(#state::codec::derived);
        let retired = &content.retired;
        let fields = content.fields.iter().map(
            |Field {
                 id,
                 name,
                 ty,
                 default,
                 ..
             }| {
                let described = quote!(<#ty as #codec>::#schema());
                let Some(default) = default else {
                    return quote!(.field(#id, #name, #described));
                };
                let value = match default {
                    Some(expression) => quote!(#expression),
                    None => quote!(::core::default::Default::default()),
                };
                quote! {
                    .field_or(#id, #name, #described, #derived::bytes(|out| {
                        let default: #ty = #value;
                        #codec::#encode(&default, out);
                    }))
                }
            },
        );
        quote!(#derived::schema::Record::new(#name) #(#fields)* .retire(&[#(#retired),*]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the compiler says about a type.
    fn refused(item: &str, target: Target) -> String {
        let item = syn::parse_str(item).expect("it is a type");
        match expand(&item, target) {
            Ok(expanded) => panic!("{expanded}"),
            Err(error) => error.to_string(),
        }
    }

    fn value(item: &str) -> String {
        refused(item, Target::Value)
    }

    #[test]
    fn what_is_wrong_with_ids_is_said() {
        assert!(value("struct A { x: u8 }").starts_with("lacks an id"));
        assert!(value("enum A { X }").starts_with("lacks an id"));
        assert!(value("enum A { #[keybed(id = 1)] X(u8) }").starts_with("lacks an id"));
        assert_eq!(
            value("struct A { #[keybed(id = 1)] x: u8, #[keybed(id = 1)] y: u8 }"),
            "the id 1 occurs twice; 2 is free"
        );
        assert_eq!(
            value("enum A { #[keybed(id = 3)] X, #[keybed(id = 3)] Y }"),
            "the id 3 occurs twice; 1 is free"
        );
        assert_eq!(
            value("#[keybed(retired(1, 2))] struct A { #[keybed(id = 2)] x: u8 }"),
            "the id 2 is retired: entries may still hold what it stood for; 3 is free"
        );
        let variant = "enum A { #[keybed(id = 0, retired(7))] X { #[keybed(id = 7)] x: u8 } }";
        assert!(value(variant).starts_with("the id 7 is retired"));
        assert_eq!(
            value("#[keybed(retired(1, 1))] struct A;"),
            "the id 1 is retired twice"
        );
    }

    #[test]
    fn words_that_mean_nothing_are_refused() {
        assert_eq!(
            value("#[keybed(id = 1)] struct A;"),
            "here stand retired, name, crate"
        );
        assert_eq!(
            value("struct A { #[keybed(id = 1, was = 2)] x: u8 }"),
            "here stand id, default"
        );
        assert_eq!(
            value("struct A { #[keybed(id = 1, id = 2)] x: u8 }"),
            "`id` is said twice"
        );
        assert!(value("union A { x: u8 }").starts_with("a union"));
        assert!(value("enum A {}").starts_with("an enum without variants"));
    }

    #[test]
    fn variants_of_keys_ascend() {
        let message = "ids of variants must ascend and be below 256, so that keys sort as their values do";
        for ids in ["[2, 1]", "[1, 256]"] {
            let [a, b]: [&str; 2] = ids
                .trim_matches(['[', ']'])
                .split(", ")
                .collect::<Vec<_>>()
                .try_into()
                .unwrap();
            let item = format!("enum A {{ #[keybed(id = {a})] X, #[keybed(id = {b})] Y }}");
            assert_eq!(refused(&item, Target::Key), message);
            expand(&syn::parse_str(&item).unwrap(), Target::Value).unwrap();
        }
    }
}
