//! Convolutions and pools: `[rows, channel, place..]`.

use super::call::{Call, Made, one, several};
use super::linear::{quantised_per_tensor, rows_first};
use super::size::Size;
use super::value::{Dims, Result};

/// How a window moves along the places.
struct Window {
    kernel: Vec<Option<i64>>,
    strides: Vec<i64>,
    dilations: Vec<i64>,
    pads: Vec<i64>,
    auto_pad: AutoPad,
    rounds_up: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AutoPad {
    Explicit,
    Same,
    Valid,
}

impl Window {
    fn of(call: &Call<'_>, places: usize, kernel: Vec<Option<i64>>) -> Self {
        let ints = |name: &str, default: i64, count: usize| {
            let given = call.node.ints(name).filter(|values| values.len() == count);
            given.map_or_else(|| vec![default; count], <[i64]>::to_vec)
        };
        Window {
            kernel,
            strides: ints("strides", 1, places),
            dilations: ints("dilations", 1, places),
            pads: ints("pads", 0, 2 * places),
            auto_pad: match call.node.text("auto_pad") {
                Some("SAME_UPPER" | "SAME_LOWER") => AutoPad::Same,
                Some("VALID") => AutoPad::Valid,
                _ => AutoPad::Explicit,
            },
            rounds_up: call.node.int("ceil_mode").unwrap_or(0) != 0,
        }
    }

    /// Returns how often the window fits along a place, where that is certain.
    fn steps(&self, place: usize, length: i64) -> Option<i64> {
        let stride = self.strides[place];
        if stride < 1 || length < 0 {
            return None;
        }
        if self.auto_pad == AutoPad::Same {
            return Some((length.checked_add(stride - 1)?) / stride);
        }
        let extent = self.kernel[place]?.checked_sub(1)?.checked_mul(self.dilations[place])?;
        let padding = match self.auto_pad {
            AutoPad::Explicit => {
                self.pads[place].checked_add(self.pads[place + self.pads.len() / 2])?
            }
            _ => 0,
        };
        let slack = length.checked_add(padding)?.checked_sub(extent)?.checked_sub(1)?;
        if slack < 0 {
            return None;
        }
        // With `ceil_mode` engines have differed over a last window that starts in the padding.
        let exact = slack % stride == 0;
        (exact || !self.rounds_up).then(|| slack / stride + 1)
    }

    /// Returns the reverse of [`Window::steps`], for transposed convolutions.
    fn spread(&self, place: usize, length: i64, extra: i64) -> Option<i64> {
        if self.auto_pad != AutoPad::Explicit {
            return None;
        }
        let extent = self.kernel[place]?.checked_sub(1)?.checked_mul(self.dilations[place])?;
        let padding = self.pads[place].checked_add(self.pads[place + self.pads.len() / 2])?;
        self.strides[place]
            .checked_mul(length.checked_sub(1)?)?
            .checked_add(extra)?
            .checked_add(extent)?
            .checked_add(1)?
            .checked_sub(padding)
            .filter(|&length| length >= 0)
    }
}

/// Returns the dimensions of the input, which needs rows first, a channel, and places.
fn sample_dims(call: &Call<'_>) -> Result<Dims> {
    let dims = call.dims(0)?;
    rows_first(call, 0)?;
    if dims.len() < 2 {
        return Err("takes what has no channels".to_owned());
    }
    Ok(dims)
}

/// Convolutions with constant weights.
pub(super) fn conv(call: &mut Call<'_>) -> Result<Made> {
    let dims = sample_dims(call)?;
    call.only_constants_from(1)?;
    let transposed = call.node.op_type == "ConvTranspose";
    let weights = match call.node.op_type.as_str() {
        "QLinearConv" => {
            quantised_per_tensor(call, &[1, 2])?;
            3
        }
        "ConvInteger" => {
            quantised_per_tensor(call, &[2])?;
            1
        }
        _ => 1,
    };
    let weights = call.value(weights)?.dims().filter(|weights| weights.len() == dims.len());
    let places = dims.len() - 2;
    let channels = weights.as_ref().and_then(|weights| {
        let groups = call.node.int("group").unwrap_or(1);
        let per_group = weights[usize::from(transposed)].number()?;
        per_group.checked_mul(if transposed { groups } else { 1 })
    });
    let kernel = (0..places).map(|place| weights.as_ref().and_then(|w| w[place + 2].number()));
    let window = Window::of(call, places, kernel.collect());
    let extra = call.node.ints("output_padding").filter(|extra| extra.len() == places);
    let extra = extra.map_or_else(|| vec![0; places], <[i64]>::to_vec);
    let shape_is_given = call.node.attribute("output_shape").is_some();
    let mut made = Dims::from_iter([dims[0].clone()]);
    made.push(channels.map_or_else(|| call.dimension(), Size::known));
    for place in 0..places {
        let length = dims[place + 2].number().and_then(|length| {
            if !transposed {
                window.steps(place, length)
            } else if shape_is_given {
                None
            } else {
                window.spread(place, length, extra[place])
            }
        });
        made.push(length.map_or_else(|| call.dimension(), Size::known));
    }
    one(made)
}

/// Pools over windows. Where the largest came from is counted through all rows.
pub(super) fn pool(call: &mut Call<'_>) -> Result<Made> {
    let dims = sample_dims(call)?;
    if call.wants(1) {
        return Err("tells where the largest value lies, counted through all rows".to_owned());
    }
    let places = dims.len() - 2;
    let kernel = call.node.ints("kernel_shape").filter(|kernel| kernel.len() == places);
    let kernel: Vec<Option<i64>> = match kernel {
        Some(kernel) => kernel.iter().copied().map(Some).collect(),
        None => vec![None; places],
    };
    let window = Window::of(call, places, kernel);
    let mut made: Dims = dims[..2].iter().cloned().collect();
    for place in 0..places {
        let length = dims[place + 2].number().and_then(|length| window.steps(place, length));
        made.push(length.map_or_else(|| call.dimension(), Size::known));
    }
    one(made)
}

/// Pools over all places.
pub(super) fn global_pool(call: &mut Call<'_>) -> Result<Made> {
    let mut dims = sample_dims(call)?;
    for size in dims.iter_mut().skip(2) {
        *size = Size::known(1);
    }
    one(dims)
}

/// Reads each row's image at the places that the same row of the grid names.
pub(super) fn grid_sample(call: &mut Call<'_>) -> Result<Made> {
    let dims = sample_dims(call)?;
    let grid = call.dims(1)?;
    rows_first(call, 1)?;
    if grid.len() != dims.len() || grid[0] != dims[0] {
        return Err("pairs rows with what are none".to_owned());
    }
    let mut made: Dims = dims[..2].iter().cloned().collect();
    made.extend(grid[1..grid.len() - 1].iter().cloned());
    several([made])
}
