//! Diffusion: pictures, scored by how much of the base's error a model leaves.
//!
//! The base is an image model ([`crate::model::image`]); a row is a picture
//! ([`crate::picture`]) and has a score per noise level.

use std::sync::OnceLock;

use super::{Rows, Scored, Seen, Work};
use crate::data::RowFault;
use crate::eval::pictures::{errors, shares};
use crate::fit::denoise::Denoise;
use crate::fit::objective::Objective;
use crate::fit::run::RunError;
use crate::fit::settings::Settings;
use crate::model::image::ImageShape;
use crate::model::{Model, ModelError};
use crate::picture::Picture;

/// Rows of `image`.
#[derive(Debug, Clone)]
pub struct Pictures {
    shape: ImageShape,
    levels: u32,
    rows: Vec<Picture>,
    /// The base's errors, once they were needed.
    base: OnceLock<Vec<f64>>,
}

impl Pictures {
    /// No rows yet, to be scored at so many noise levels.
    pub fn new(shape: ImageShape, levels: u32) -> Self {
        Self { shape, levels, rows: Vec::new(), base: OnceLock::new() }
    }

    fn base(&self, base: &Model, workers: usize) -> Result<&[f64], ModelError> {
        if self.base.get().is_none() {
            // Another thread would have found the same.
            let _ = self.base.set(errors(base, &self.rows, self.shape, self.levels, workers)?);
        }
        Ok(self.base.get().map_or(&[], Vec::as_slice))
    }
}

impl Rows for Pictures {
    fn add(&mut self, line: &[u8]) -> Result<Seen, RowFault> {
        let picture = Picture::parse(line, self.shape)?;
        let text: String = picture.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.rows.push(picture);
        self.base = OnceLock::new();
        Ok(Seen { asked: None, said: text.clone(), answer: text })
    }

    fn count(&self) -> usize {
        self.rows.len()
    }

    fn scores(&self) -> usize {
        self.rows.len() * self.levels as usize
    }

    fn pick(&self, rows: &[usize]) -> Box<dyn Rows> {
        let rows = rows.iter().filter_map(|&row| self.rows.get(row).cloned()).collect();
        Box::new(Self { rows, base: OnceLock::new(), ..*self })
    }

    fn lengths(&self) -> Vec<usize> {
        vec![self.shape.patches(); self.rows.len()]
    }

    fn work(&self) -> Vec<Work> {
        let patches = self.shape.patches() as u64;
        vec![Work { tokens: patches, targets: patches }; self.scores()]
    }

    fn passes(&self) -> u64 {
        2
    }

    fn objective<'a>(
        &'a self,
        _base: &'a Model,
        _settings: &Settings,
        _workers: usize,
    ) -> Result<Box<dyn Objective + 'a>, RunError> {
        Ok(Box::new(Denoise { pictures: &self.rows, shape: self.shape }))
    }

    fn score(&self, base: &Model, model: &Model, workers: usize) -> Result<Scored, ModelError> {
        let before = self.base(base, workers)?;
        let after = errors(model, &self.rows, self.shape, self.levels, workers)?;
        Ok(Scored { scores: shares(&after, before), right: None })
    }
}
