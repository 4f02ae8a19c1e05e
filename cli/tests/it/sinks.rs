//! What lies in an output directory besides the output: shown, kept, given up; and starts without it.

use crate::{
    fold,
    place::{Place, Run},
    savepoints::{obey, stopped},
};
use std::{collections::BTreeSet, fs};

/// The lines of all committed parts.
fn committed_lines(place: &Place) -> BTreeSet<String> {
    let parts = fs::read_dir(place.path("out/parts")).unwrap();
    let texts = parts.map(|part| fs::read_to_string(part.unwrap().path()).unwrap());
    texts
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[test]
fn without_the_old_output_a_start_is_refused_and_with_leave_gives_exactly_the_rest() {
    // Rows would be missing without a word, or there would be no way on.
    for backend in ["lsm", "heap"] {
        let place = Place::new();
        let checkpoint = stopped(&place);
        let checkpoint = checkpoint.to_str().unwrap();
        let exported = obey(&place, &["snapshot", "export", checkpoint, "--to", "sp"]).summary();
        let from = exported["directory"].as_str().unwrap();
        // Stopped: what is committed is what the checkpoint names.
        let lost = committed_lines(&place);
        assert!(!lost.is_empty());
        fs::remove_dir_all(place.path("out")).unwrap();
        fs::remove_dir_all(place.state_dir()).unwrap();

        let words = ["-s", from, "--backend", backend, "-p", "3"];
        let refused = place.run(&words).error("TransactionLost", 5);
        assert!(!place.state_dir().join("job.json").exists(), "{refused}");
        assert!(!place.path("out").exists(), "{refused}");
        let checked = Run::of(
            place
                .flights(&[&words[..], &["--check"]].concat())
                .output()
                .unwrap(),
        );
        assert_eq!(checked.status, 5, "{}", checked.stdout);
        assert!(checked.stdout.contains("TransactionLost"), "{}", checked.stdout);

        let accepted = [&words[..], &["--accept-lost-transactions"]].concat();
        let summary = place.run(&accepted).summary();
        assert_eq!(summary["state"], "finished");
        let mut expected = fold::expected();
        for text in [&mut expected.aircraft, &mut expected.daily] {
            *text = text
                .split_inclusive('\n')
                .filter(|line| !lost.contains(line.trim_end()))
                .collect();
        }
        place.assert_output(&expected);
        let told: u64 = place
            .events()
            .iter()
            .filter(|e| e["event"] == "transactions-lost")
            .map(|e| e["lines"].as_u64().unwrap())
            .sum();
        assert_eq!(told, lost.len() as u64);
    }
}

#[test]
fn a_damaged_hold_keeps_all_parts_until_it_is_given_up() {
    // Parts that a savepoint names would go because the file that says so is damaged.
    let place = Place::new();
    stopped(&place);
    let ls = obey(&place, &["sink", "ls", "out"]).summary();
    let histories = ls["histories"].as_array().unwrap();
    let job_id = place.job_root().file_name().unwrap().to_str().unwrap().to_owned();
    assert!(!histories.is_empty());
    for history in histories {
        assert_eq!(
            (history["job_id"].as_str(), &history["over"]),
            (Some(job_id.as_str()), &false.into())
        );
        assert!(history["committed"]["bytes"].as_u64().unwrap() > 0, "{history}");
    }
    let part = fs::read_dir(place.path("out/parts")).unwrap().next().unwrap();
    let part = part.unwrap().file_name().into_string().unwrap();
    let lineage = &part[..49];
    fs::create_dir(place.path("out/.holds")).unwrap();
    let hold = place.path("out/.holds").join(format!("{lineage}-1-16777217"));
    fs::write(&hold, "damaged").unwrap();

    let before = committed_lines(&place);
    let ls = obey(&place, &["sink", "ls", "out"]);
    assert_eq!(ls.status, 3, "{}", ls.stdout);
    place.run(&["--resume"]).summary();
    place.assert_output(&fold::expected());
    assert!(committed_lines(&place).is_superset(&before));

    obey(&place, &["sink", "release", "out", "--savepoint", "savepoint-1"]).error("NotFound", 1);
    let planned = obey(&place, &["sink", "release", "out", "--all", "--dry-run"]).summary();
    assert!(planned["removed"]["parts"].as_u64().unwrap() > 0 && hold.exists());
    let done = obey(&place, &["sink", "release", "out", "--all"]).summary();
    assert_eq!(
        (&done["unreadable"], &done["removed"]),
        (&1.into(), &planned["removed"])
    );
    let left: BTreeSet<_> = fs::read_dir(place.path("out"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(left, ["aircraft.csv", "daily.csv"].map(str::to_owned).into());
    let nothing = Run::of(place.command(&["sink", "ls", "out"]).output().unwrap());
    assert!(
        nothing.stdout.contains("nothing is in doubt"),
        "{}",
        nothing.stdout
    );
}

#[test]
fn what_to_release_must_be_said() {
    // A slip of the finger would give up what savepoints need.
    let place = Place::new();
    fs::create_dir(place.path("out")).unwrap();
    for words in [
        &["sink", "release", "out"][..],
        &["sink", "release", "out", "--all", "--savepoint", "x"],
        &["sink", "release", "--all"],
    ] {
        assert_eq!(obey(&place, words).status, 2, "{words:?}");
    }
    obey(&place, &["sink", "ls", "nowhere"]).error("NotFound", 1);
    obey(&place, &["sink", "release", "out", "--all"]).summary();
}
