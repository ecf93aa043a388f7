//! The two ends of an image model on candle's tape: features in, a patch's values out.

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp1, CustomOp3, Device, Layout, Result, Shape, Tensor, bail};

use super::tape::{HeadStash, LossesAndWeights, elements, stored, unlock};
use crate::kernel::gemm::{Mat, MatMut, Write, gemm};
use crate::kernel::norm;
use crate::model::Patches;
use crate::model::image::{embed, errors};

/// Turns features into the residual stream; trains the matrix.
#[derive(Debug)]
pub(crate) struct FeatureOp {
    pub(crate) patches: Arc<Patches>,
}

impl CustomOp1 for FeatureOp {
    fn name(&self) -> &'static str {
        "tiltyard-features"
    }

    fn cpu_fwd(&self, table: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (width, hidden) = layout.shape().dims2()?;
        let out = embed(stored(table, layout)?, hidden, &self.patches.features);
        let rows = self.patches.features.len() / width;
        Ok((CpuStorage::F32(out), (rows, hidden).into()))
    }

    fn bwd(&self, table: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (width, hidden) = table.dims2()?;
        let rows = self.patches.features.len() / width;
        let grad = grad.contiguous()?;
        let grad = elements(&grad)?;
        let mut out = vec![0f32; width * hidden];
        let features = Mat::dense(&self.patches.features, rows, width);
        gemm(
            MatMut::dense(&mut out, width, hidden),
            Write::Replace,
            1.0,
            features.t(),
            Mat::dense(&grad, rows, hidden),
        );
        Ok(Some(Tensor::from_vec(out, (width, hidden), &Device::Cpu)?))
    }
}

/// The head of an image model: operands are the last hidden states, the norm and the matrix.
///
/// The result is the weighted sum of the images' mean squared errors; the errors themselves
/// are left in `losses`.
#[derive(Debug)]
pub(crate) struct PatchHeadOp {
    patches: Arc<Patches>,
    eps: f32,
    /// Whether the norm and the matrix are trained.
    trains: bool,
    losses: LossesAndWeights,
    stash: Mutex<Option<HeadStash>>,
}

impl PatchHeadOp {
    pub(crate) fn new(patches: Arc<Patches>, eps: f32, trains: bool, losses: LossesAndWeights) -> Self {
        Self { patches, eps, trains, losses, stash: Mutex::new(None) }
    }

    /// The derivative of the result by every value said.
    fn pull(&self, said: &[f32]) -> Vec<f32> {
        let goals = &self.patches.goals;
        let size = (goals.len() / self.patches.weights.len().max(1)).max(1);
        let images = said.chunks_exact(size).zip(goals.chunks_exact(size)).zip(&self.patches.weights);
        images
            .flat_map(|((said, goals), weight)| {
                let share = 2.0 * weight / size as f32;
                said.iter().zip(goals).map(move |(said, goal)| share * (said - goal))
            })
            .collect()
    }
}

impl CustomOp3 for PatchHeadOp {
    fn name(&self) -> &'static str {
        "tiltyard-patch-head"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        matrix: &CpuStorage,
        matrix_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, hidden) = x_layout.shape().dims2()?;
        let (outputs, _) = matrix_layout.shape().dims2()?;
        let x = stored(x, x_layout)?;
        let (weight, matrix) = (stored(weight, weight_layout)?, stored(matrix, matrix_layout)?);
        let mut normed = vec![0f32; x.len()];
        norm::forward(x, weight, self.eps, &mut normed);
        let (normed, matrix) = (Mat::dense(&normed, rows, hidden), Mat::dense(matrix, outputs, hidden));
        let mut said = vec![0f32; rows * outputs];
        gemm(MatMut::dense(&mut said, rows, outputs), Write::Replace, 1.0, normed, matrix.t());
        let weights = &self.patches.weights;
        let losses = errors(&said, &self.patches.goals, weights.len());
        let total: f64 = losses.iter().zip(weights).map(|(loss, weight)| loss * f64::from(*weight)).sum();
        let pull = self.pull(&said);
        let pull = Mat::dense(&pull, rows, outputs);
        let mut dnormed = vec![0f32; x.len()];
        gemm(MatMut::dense(&mut dnormed, rows, hidden), Write::Replace, 1.0, pull, matrix);
        let mut dmatrix = self.trains.then(|| vec![0f32; outputs * hidden]);
        if let Some(dmatrix) = &mut dmatrix {
            gemm(MatMut::dense(dmatrix, outputs, hidden), Write::Replace, 1.0, pull.t(), normed);
        }
        let mut dweight = self.trains.then(|| vec![0f32; hidden]);
        let mut dx = vec![0f32; x.len()];
        norm::backward(x, weight, self.eps, &dnormed, &mut dx, dweight.as_deref_mut());
        *unlock(self.losses.lock()) = (losses, weights.clone());
        *unlock(self.stash.lock()) = Some((dx, dweight, dmatrix));
        Ok((CpuStorage::F32(vec![total as f32]), Shape::from(())))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        matrix: &Tensor,
        _res: &Tensor,
        _grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        // The result is the tape's root, so the gradient that arrives is one.
        let Some((dx, dweight, dmatrix)) = unlock(self.stash.lock()).take() else {
            bail!("the head's gradient was already taken")
        };
        let tensor = |values: Vec<f32>, like: &Tensor| Tensor::from_vec(values, like.shape(), &Device::Cpu);
        let dweight = dweight.map(|d| tensor(d, weight)).transpose()?;
        let dmatrix = dmatrix.map(|d| tensor(d, matrix)).transpose()?;
        Ok((Some(tensor(dx, x)?), dweight, dmatrix))
    }
}
