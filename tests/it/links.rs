//! The pages that lead into the repository lead to what is there.

use std::{fs, path::Path};

/// Links of a page: text and target.
fn links(page: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join(page)).unwrap();
    let mut found = Vec::new();
    for (at, _) in text.match_indices("](") {
        let label = text[..at].rsplit_once('[').unwrap().1;
        let target = text[at + 2..].split_once(')').unwrap().0;
        found.push((label.to_owned(), target.to_owned()));
    }
    found
}

#[test]
fn every_link_leads_to_a_file() {
    // The person who arrives at night would search in the dark.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for page in ["README.md", "ARCHITECTURE.md", "docs/decisions/README.md"] {
        let links = links(page);
        assert!(links.len() >= 3, "{page} has links");
        for (label, target) in links.iter().filter(|(_, target)| !target.starts_with("http")) {
            let file = root
                .join(page)
                .parent()
                .unwrap()
                .join(target.split('#').next().unwrap());
            assert!(file.exists(), "{page}: [{label}]({target})");
        }
    }
}

#[test]
fn every_promise_names_a_test_that_exists() {
    // A promise without its test is an advertisement.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut promises = 0;
    for (label, target) in links("README.md")
        .iter()
        .filter(|(label, _)| label.starts_with('`'))
    {
        let Some(test) = label.strip_prefix('`').and_then(|l| l.strip_suffix('`')) else {
            continue;
        };
        let code = fs::read_to_string(root.join(target)).unwrap();
        assert!(
            code.contains(&format!("#[test]\nfn {test}()")),
            "{target} has no test {test}"
        );
        promises += 1;
    }
    assert!(promises >= 10);
}

#[test]
fn every_decision_is_in_the_index() {
    // A decision that nobody finds is taken again, differently.
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/decisions");
    let indexed: Vec<String> = links("docs/decisions/README.md")
        .into_iter()
        .map(|(_, target)| target)
        .collect();
    for entry in fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name == "README.md" || indexed.contains(&name),
            "docs/decisions/README.md does not list {name}"
        );
    }
}
