//! Uploads and exports, as a client makes them.

use super::{Tenant, until};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

impl Tenant {
    /// `mediaCreateUpload` with this input; its payload.
    pub async fn create_upload(&self, token: &str, input: Value) -> Value {
        let query = "mutation($input: MediaCreateUploadInput!) { mediaCreateUpload(input: $input) {
            media { id state } upload { url method headers { name value } expiresAt }
            errors { __typename code message field } } }";
        let made = self
            .gql_with(Some(token), query, json!({ "input": input }))
            .await;
        made.data()["mediaCreateUpload"].clone()
    }

    /// `mediaCompleteUpload`; its payload.
    pub async fn complete_upload(&self, token: &str, media: &str) -> Value {
        let query = "mutation($id: ID!) { mediaCompleteUpload(input: { mediaId: $id }) {
            media { id state } job { id kind state } errors { __typename code message field } } }";
        let done = self
            .gql_with(Some(token), query, json!({ "id": media }))
            .await;
        done.data()["mediaCompleteUpload"].clone()
    }

    /// Uploads a photo of these bytes, up to the job that looks at them: the media's global id.
    pub async fn send_file(&self, token: &str, filename: &str, mime: &str, bytes: &[u8]) -> String {
        let input = json!({ "resourceType": "photo", "filename": filename, "contentType": mime, "size": bytes.len() });
        let made = self.create_upload(token, input).await;
        let url = made["upload"]["url"]
            .as_str()
            .unwrap_or_else(|| panic!("{made:#}"));
        let put = self.follow(Method::PUT, url).body(bytes.to_vec());
        assert_eq!(self.send(put).await.status, StatusCode::CREATED);
        let media = made["media"]["id"].as_str().unwrap();
        let done = self.complete_upload(token, media).await;
        assert_eq!(done["media"]["state"], "PROCESSING", "{done:#}");
        media.to_owned()
    }

    /// `changesExport`; the job's id.
    pub async fn ask_export(&self, token: &str, input: Value) -> String {
        let query = "mutation($input: ChangesExportInput!) { changesExport(input: $input) {
            job { id kind } errors { code message field } } }";
        let asked = self
            .gql_with(Some(token), query, json!({ "input": input }))
            .await;
        let job = &asked.payload()["job"];
        assert_eq!(job["kind"], "history.export", "{:#}", asked.body);
        job["id"].as_str().unwrap().to_owned()
    }

    /// Waits until the job of an export is in this state, and returns it.
    pub async fn export_is(&self, token: &str, job: &str, state: &str) -> Value {
        let query = "query($id: ID!) { node(id: $id) { ... on Job { id state attempts progress lastError
            result { id filename contentType size sha256 state resourceType url uploadedBy { ... on SystemActor { reason } } } } } }";
        until(&format!("the export is {state}"), async || {
            let answer = self
                .gql_with(Some(token), query, json!({ "id": job }))
                .await;
            let node = answer.data()["node"].clone();
            (node["state"] == state).then_some(node)
        })
        .await
    }

    /// Has the trail written out; the job, with its result.
    pub async fn export(&self, token: &str, input: Value) -> Value {
        let job = self.ask_export(token, input).await;
        self.export_is(token, &job, "SUCCEEDED").await
    }
}
