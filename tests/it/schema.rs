//! The committed schema is the one that is served: its diff is the review of the API.

#[test]
fn schema_graphql_is_current() {
    let committed = include_str!("../../schema.graphql");
    let served = format!("{}\n", bulkhead::cli::schema_text().trim_end());
    assert!(
        committed == served,
        "schema.graphql is not what is served; run: cargo run -- schema > schema.graphql"
    );
}
