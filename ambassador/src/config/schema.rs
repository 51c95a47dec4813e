//! The JSON Schema of the file.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::file::File;

/// The JSON Schema of the file.
pub(crate) fn schema() -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<File>()
        .to_value();
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".into(), "ambassador configuration".into());
    }
    schema
}
