//! Stub, replaced.
#![allow(missing_docs, clippy::missing_errors_doc)]
pub async fn write_lines(_: &common::store::Store, _: &std::path::Path) -> anyhow::Result<usize> {
    Ok(0)
}
