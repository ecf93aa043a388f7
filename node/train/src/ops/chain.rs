//! The way back through a chain of operations, without candle's tape.
//!
//! Candle's own backward pass adds every gradient to a tensor of zeros, and adds on threads
//! of its own, which stand in the way of a step's workers. A step here is a chain: each
//! operation takes what the one before it made, and each but the first and last has
//! parameters of its own. So its gradients need no graph and no sums, but for a table that
//! begins and ends the chain.

use candle_core::{CustomOp1, CustomOp2, CustomOp3, Result, Tensor, TensorId};

use super::tape::elements;

/// One operation done, with what it was given.
enum Link {
    First { table: Tensor, op: Box<dyn CustomOp1> },
    Middle { x: Tensor, theta: Tensor, op: Box<dyn CustomOp2> },
}

/// The operations done so far, each with what its gradient needs.
#[derive(Default)]
pub(crate) struct Chain {
    links: Vec<Link>,
}

/// Gradients by the tensor that they belong to.
#[derive(Default)]
pub(crate) struct Found(Vec<(TensorId, Tensor)>);

impl Found {
    /// Takes the gradient of `tensor`; of what has none, there is nothing.
    ///
    /// # Errors
    /// When a gradient is not on the CPU.
    pub(crate) fn take(&mut self, tensor: &Tensor) -> Result<Option<Vec<f32>>> {
        let mut total: Option<Vec<f32>> = None;
        while let Some(at) = self.0.iter().position(|(id, _)| *id == tensor.id()) {
            let (_, part) = self.0.remove(at);
            match &mut total {
                None => total = Some(elements(&part)?.to_vec()),
                Some(total) => crate::kernel::math::add_into(total, &elements(&part)?),
            }
        }
        Ok(total)
    }

    fn put(&mut self, tensor: &Tensor, gradient: Option<Tensor>) {
        self.0.extend(gradient.map(|gradient| (tensor.id(), gradient)));
    }
}

impl Chain {
    /// Begins the chain with an operation on a trained table.
    pub(crate) fn first(
        &mut self,
        table: &Tensor,
        op: impl CustomOp1 + Send + Sync + 'static,
    ) -> Result<Tensor> {
        let out = table.apply_op1_no_bwd(&op)?;
        self.links.push(Link::First { table: table.clone(), op: Box::new(op) });
        Ok(out)
    }

    /// Goes on with an operation that has parameters of its own.
    pub(crate) fn next(
        &mut self,
        x: Tensor,
        theta: &Tensor,
        op: impl CustomOp2 + Send + Sync + 'static,
    ) -> Result<Tensor> {
        let out = x.apply_op2_no_bwd(theta, &op)?;
        self.links.push(Link::Middle { x, theta: theta.clone(), op: Box::new(op) });
        Ok(out)
    }

    /// Ends the chain with an operation whose result is one number, and goes all the way back.
    pub(crate) fn back(
        self,
        x: &Tensor,
        norm: &Tensor,
        matrix: &Tensor,
        op: impl CustomOp3,
    ) -> Result<Found> {
        let out = x.apply_op3_no_bwd(norm, matrix, &op)?;
        let (mut gradient, dnorm, dmatrix) = op.bwd(x, norm, matrix, &out, &out.ones_like()?)?;
        drop(op);
        let mut found = Found::default();
        found.put(norm, dnorm);
        found.put(matrix, dmatrix);
        for link in self.links.into_iter().rev() {
            // Where no gradient is wanted any more, none is needed before either.
            let Some(dout) = gradient.take() else { break };
            match link {
                Link::First { table, op } => found.put(&table, op.bwd(&table, &out, &dout)?),
                Link::Middle { x, theta, op } => {
                    let (dx, dtheta) = op.bwd(&x, &theta, &out, &dout)?;
                    found.put(&theta, dtheta);
                    gradient = dx;
                }
            }
        }
        Ok(found)
    }
}
