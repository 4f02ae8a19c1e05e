//! Without this an example of the gallery could stop working: each is run as it stands.

/// Every example in a module of its own, and a test that runs it.
macro_rules! gallery {
    ($($name:ident = $path:literal;)*) => {$(
        #[path = $path]
        mod $name;
    )*
        #[test]
        fn every_example_of_the_gallery_runs() {
            $($name::main().unwrap_or_else(|error| panic!("{}: {error}", $path));)*
            let listed = [$($path),*].map(|path| path.rsplit('/').next().unwrap().to_owned());
            let mut found: Vec<String> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| name.starts_with(|c: char| c.is_ascii_digit()))
                .collect();
            found.sort();
            assert_eq!(found, listed, "examples that are not run here");
        }
    };
}

gallery! {
    open_and_put = "../../examples/01_open_and_put.rs";
    families_and_batches = "../../examples/02_families_and_batches.rs";
    counters_with_merge = "../../examples/03_counters_with_merge.rs";
    range_scans_and_deletes = "../../examples/04_range_scans_and_deletes.rs";
    entries_that_expire = "../../examples/05_entries_that_expire.rs";
    shared_store_under_threads = "../../examples/06_shared_store_under_threads.rs";
}
