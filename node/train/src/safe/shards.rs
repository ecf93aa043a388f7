//! A model's tensors in one file or in several, as Hugging Face saves them.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde::Deserialize;

use super::{LoadError, TensorFile, read_small};

/// The weights in one file.
pub const SINGLE_FILE: &str = "model.safetensors";
/// The list of the files that share the weights.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
/// Most files that may share the weights.
const SHARDS_MAX: usize = 1_024;
/// Bytes copied at a time.
const COPY_BYTES: usize = 1 << 20;

#[derive(Debug, Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The tensors of a model's folder.
#[derive(Debug)]
pub struct TensorSet {
    files: Vec<TensorFile>,
    /// Which file holds each tensor.
    places: BTreeMap<String, usize>,
}

impl TensorSet {
    /// Opens `model.safetensors`, or the files that `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// [`LoadError`] naming the file and the rule it breaks; also when a file lacks a tensor that
    /// the index promises.
    pub fn read(folder: &Path, limit: u64) -> Result<Self, LoadError> {
        let (single, index) = (folder.join(SINGLE_FILE), folder.join(INDEX_FILE));
        if single.exists() || !index.exists() {
            return Ok(Self::of(TensorFile::read(&single, limit)?));
        }
        let malformed = |fact: String| LoadError::Malformed { path: index.clone(), fact };
        let list: Index = serde_json::from_slice(&read_small(&index)?)
            .map_err(|error| malformed(format!("the index cannot be read: {error}")))?;
        let mut names: Vec<&str> = list.weight_map.values().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() || names.len() > SHARDS_MAX {
            return Err(malformed(format!("{} files; 1 to {SHARDS_MAX} are accepted", names.len())));
        }
        if let Some(name) = names.iter().find(|name| !is_plain(name)) {
            return Err(malformed(format!("{name:?} is not the name of a file beside it")));
        }
        let files = names.iter().map(|name| TensorFile::read(&folder.join(name), limit));
        let files = files.collect::<Result<Vec<_>, _>>()?;
        let mut places = BTreeMap::new();
        for (tensor, name) in &list.weight_map {
            let at = names.binary_search(&name.as_str()).unwrap_or_default();
            files[at].entry(tensor)?;
            places.insert(tensor.clone(), at);
        }
        let promised = |name: &str| places.contains_key(name);
        for file in &files {
            if let Some(name) = file.names().find(|name| !promised(name)) {
                return Err(LoadError::Unexpected { path: file.path.clone(), name: name.to_owned() });
            }
        }
        Ok(Self { files, places })
    }

    fn of(file: TensorFile) -> Self {
        let places = file.names().map(|name| (name.to_owned(), 0)).collect();
        Self { files: vec![file], places }
    }

    /// Whether the tensors lie in more than one file.
    pub fn is_sharded(&self) -> bool {
        self.files.len() > 1
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Whether every tensor is stored as bf16.
    pub fn is_bf16(&self) -> bool {
        self.places.iter().all(|(name, &at)| {
            self.files[at].entries.get(name).is_some_and(|entry| entry.dtype == Dtype::BF16)
        })
    }

    fn file(&self, name: &str) -> Result<&TensorFile, LoadError> {
        match (self.places.get(name), self.files.first()) {
            (Some(&at), _) => Ok(&self.files[at]),
            (None, first) => {
                let path = first.map_or_else(PathBuf::new, |file| file.path.clone());
                Err(LoadError::Missing { path, name: name.to_owned() })
            }
        }
    }

    /// Checks that there are exactly the tensors of a schema, each of its shape; `ignored` may be there too.
    ///
    /// # Errors
    /// As [`TensorFile::check_schema`].
    pub fn check_schema(
        &self,
        schema: &BTreeMap<String, Vec<usize>>,
        ignored: impl Fn(&str) -> bool,
    ) -> Result<(), LoadError> {
        for (name, wanted) in schema {
            self.file(name)?.check_shape(name, wanted)?;
        }
        let stranger = |(name, _): &(&String, &usize)| !schema.contains_key(*name) && !ignored(name);
        match self.places.iter().find(stranger) {
            None => Ok(()),
            Some((name, &at)) => {
                Err(LoadError::Unexpected { path: self.files[at].path.clone(), name: name.clone() })
            }
        }
    }

    /// Reads one tensor as `f32`, proving every value finite.
    ///
    /// # Errors
    /// As [`TensorFile::values`].
    pub fn values(&self, name: &str) -> Result<Vec<f32>, LoadError> {
        self.file(name)?.values(name)
    }

    /// Writes all tensors into one file, bytes unchanged, in alphabetical order.
    ///
    /// # Errors
    /// [`LoadError::Read`] when a file cannot be read or written.
    pub fn join(&self, to: &Path) -> Result<(), LoadError> {
        let mut header = serde_json::Map::new();
        header.insert("__metadata__".to_owned(), serde_json::json!({ "format": "pt" }));
        let mut at = 0u64;
        for name in self.places.keys() {
            let entry = self.file(name)?.entry(name)?;
            let end = at + (entry.range.end - entry.range.start);
            let dtype = entry.dtype;
            header.insert(
                name.clone(),
                serde_json::json!({ "dtype": dtype, "shape": entry.shape, "data_offsets": [at, end] }),
            );
            at = end;
        }
        let mut text = serde_json::Value::Object(header).to_string().into_bytes();
        text.resize(text.len().next_multiple_of(8), b' ');
        let failed = |source| LoadError::Read { path: to.to_owned(), source };
        let mut out = std::io::BufWriter::new(std::fs::File::create(to).map_err(failed)?);
        out.write_all(&(text.len() as u64).to_le_bytes()).map_err(failed)?;
        out.write_all(&text).map_err(failed)?;
        let mut buffer = vec![0u8; COPY_BYTES];
        for name in self.places.keys() {
            let file = self.file(name)?;
            let mut range = file.entry(name)?.range.clone();
            while !range.is_empty() {
                let count = usize::try_from(range.end - range.start).unwrap_or(COPY_BYTES).min(COPY_BYTES);
                file.file
                    .read_exact_at(&mut buffer[..count], range.start)
                    .map_err(|source| LoadError::Read { path: file.path.clone(), source })?;
                out.write_all(&buffer[..count]).map_err(failed)?;
                range.start += count as u64;
            }
        }
        let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)
    }
}

/// Whether a name from an index stays inside its folder.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\'])
}
