//! What is inside the binary, as an SPDX 2.3 document.

use std::path::Path;

use serde_json::{Value, json};

use crate::dependencies::Dependency;
use crate::workspace::{self, Failure};

/// Writes the document.
pub fn write(path: &Path, crates: &[Dependency]) -> Result<(), Failure> {
    let lock = workspace::sha256(&workspace::root().join("Cargo.lock"))?;
    let packages: Vec<Value> = crates.iter().map(package).collect();
    let mut relationships = vec![json!({
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": identifier("ambassador", env!("CARGO_PKG_VERSION")),
    })];
    for entry in crates {
        for (name, version) in &entry.uses {
            relationships.push(json!({
                "spdxElementId": identifier(&entry.name, &entry.version),
                "relationshipType": "DEPENDS_ON",
                "relatedSpdxElement": identifier(name, version),
            }));
        }
    }
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("ambassador-{}", env!("CARGO_PKG_VERSION")),
        // Another lock file makes another document.
        "documentNamespace": format!("https://ambassador.invalid/spdx/{lock}"),
        "creationInfo": {
            "created": workspace::utc(&workspace::commit_time()?)?,
            "creators": ["Tool: cargo-xtask-dist"],
        },
        "packages": packages,
        "relationships": relationships,
    });
    let mut text = format!("{document:#}");
    text.push('\n');
    workspace::write(path, text.as_bytes())
}

fn package(entry: &Dependency) -> Value {
    let Dependency {
        name,
        version,
        license,
        ..
    } = entry;
    let mut package = json!({
        "SPDXID": identifier(name, version),
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": license,
        "copyrightText": "NOASSERTION",
    });
    if let Some(digest) = &entry.sha256 {
        package["checksums"] = json!([{ "algorithm": "SHA256", "checksumValue": digest }]);
        package["externalRefs"] = json!([{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": format!("pkg:cargo/{name}@{}", version.replace('+', "%2B")),
        }]);
    }
    package
}

/// Letters, digits, dots and hyphens are all that one may have.
fn identifier(name: &str, version: &str) -> String {
    let kept = |letter: char| match letter {
        letter if letter.is_ascii_alphanumeric() || letter == '.' => letter,
        _ => '-',
    };
    let name: String = format!("{name}-{version}").chars().map(kept).collect();
    format!("SPDXRef-{name}")
}
