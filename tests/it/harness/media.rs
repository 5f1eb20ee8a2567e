//! Uploads, as a client makes them.

use super::Tenant;
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
}
