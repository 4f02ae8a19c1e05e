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
    let pages = [
        "README.md",
        "ARCHITECTURE.md",
        "docs/decisions/README.md",
        "docs/scenarios.md",
        "docs/capabilities.md",
    ];
    for page in pages {
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

/// Checks that every test named on a page exists where it is said to be; how many there are.
fn named_tests(page: &str) -> usize {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join(page).parent().unwrap().to_path_buf();
    let mut found = 0;
    for (label, target) in links(page).iter().filter(|(label, _)| label.starts_with('`')) {
        let Some(test) = label.strip_prefix('`').and_then(|l| l.strip_suffix('`')) else {
            continue;
        };
        let code =
            fs::read_to_string(folder.join(target)).unwrap_or_else(|e| panic!("{page}: {target}: {e}"));
        let (own, nested) = (
            format!("#[test]\nfn {test}()"),
            format!("#[test]\n    fn {test}()"),
        );
        assert!(
            code.contains(&own) || code.contains(&nested),
            "{page}: {target} has no test {test}"
        );
        found += 1;
    }
    found
}

#[test]
fn every_promise_names_a_test_that_exists() {
    // A promise without its test is an advertisement.
    assert!(named_tests("README.md") >= 10);
}

#[test]
fn every_scenario_names_tests_that_exist() {
    // A scenario whose test was renamed away would look as if it still held.
    assert!(named_tests("docs/scenarios.md") >= 60);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/scenarios.md")).unwrap();
    for row in text.lines().filter(|line| line.starts_with("| D")) {
        assert!(row.contains("](../"), "a scenario without a test: {row}");
    }
}

#[test]
fn every_capability_names_its_test_or_says_not_yet() {
    // A cell that nobody proved would be believed.
    assert!(named_tests("docs/capabilities.md") >= 10);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/capabilities.md")).unwrap();
    let (mut cells, mut proved) = (0, 0);
    let digit = |line: &&str| {
        line.strip_prefix("| ")
            .is_some_and(|rest| rest.starts_with(char::is_numeric))
    };
    for row in text.lines().filter(digit) {
        for cell in row.trim_matches('|').split('|').skip(2) {
            cells += 1;
            match cell.trim() {
                "not yet" => {}
                cell => {
                    assert!(cell.contains("](../"), "neither a test nor \"not yet\": {cell}");
                    proved += 1;
                }
            }
        }
    }
    assert_eq!(cells, 40);
    assert!(
        text.contains(&format!("{proved} of 40 cells are proved.")),
        "{proved} are"
    );
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
