//! Files from strangers that the training crate opens: checkpoints, adapters, data sets, jobs.

use std::cell::OnceCell;
use std::fs;

use tempfile::TempDir;
use tiltyard_train::model::adapter::AdapterSpec;
use tiltyard_train::{data, job, safe};

use crate::Target;

pub(crate) fn targets() -> Vec<Target> {
    vec![
        ("safetensors", &[], safetensors),
        ("adapter-config", &[], adapter_config),
        ("data-rows", &[], data_rows),
        ("job-file", &[], job_file),
    ]
}

thread_local! {
    static FOLDER: OnceCell<TempDir> = const { OnceCell::new() };
}

fn with_file(name: &str, data: &[u8], work: impl FnOnce(&std::path::Path)) {
    FOLDER.with(|cell| {
        let folder = cell.get_or_init(|| tempfile::tempdir().expect("a folder"));
        let path = folder.path().join(name);
        fs::write(&path, data).expect("written");
        work(&path);
    });
}

fn safetensors(data: &[u8]) {
    with_file("model.safetensors", data, |path| {
        let _ = safe::TensorFile::read(path, 16 << 20);
    });
}

fn adapter_config(data: &[u8]) {
    if let Ok(spec) = AdapterSpec::from_json(data) {
        let text = spec.to_json().expect("a specification that was read is written");
        let again = AdapterSpec::from_json(&text).expect("and read again");
        assert!(again == spec);
    }
}

fn data_rows(data: &[u8]) {
    let _ = data::parse(data);
}

fn job_file(data: &[u8]) {
    with_file("job.json", data, |path| {
        if let Some(folder) = path.parent() {
            let _ = job::spec::JobSpec::read(folder);
        }
    });
}
