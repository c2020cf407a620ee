//! What a model is given: arrays, pictures and random numbers.

use super::elements;
use super::picture::{self, Picture};
use crate::args::{ChannelsArg, LayoutOfPictures, PictureArgs};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use winograph::model::{Model, Port, PortType, Value};
use winograph::{DType, Tensor};

/// An option of the form `NAME=VALUE`. Names may hold `=`: of those that are known the longest counts that is followed by one.
pub(super) fn split<'a>(option: &str, item: &'a str, ports: &[Port]) -> Result<(&'a str, &'a str)> {
    let fits = |p: &&Port| item.strip_prefix(p.name.as_str()).is_some_and(|rest| rest.starts_with('='));
    let found = match ports.iter().filter(fits).map(|p| p.name.len()).max() {
        Some(length) => {
            item.split_at_checked(length).map(|(name, rest)| (name, rest.strip_prefix('=').unwrap_or(rest)))
        }
        None => item.split_once('='),
    };
    let found = found.filter(|(n, v)| !n.is_empty() && !v.is_empty());
    found.ok_or_else(|| Error::usage(format!("{option} '{item}': expected NAME=VALUE")))
}

/// Options of the form `NAME=VALUE`, in order.
pub(super) fn named(option: &str, list: &[String], ports: &[Port]) -> Result<Vec<(String, String)>> {
    let mut out: Vec<(String, String)> = Vec::new();
    for item in list {
        let (name, value) = split(option, item, ports)?;
        if out.iter().any(|(n, _)| n == name) {
            return Err(Error::usage(format!("{option}: {name} is there twice")));
        }
        out.push((name.to_string(), value.to_string()));
    }
    Ok(out)
}

/// A finite number or a fraction of two.
fn number(text: &str) -> Option<f32> {
    let part = |s: &str| s.trim().parse::<f64>().ok();
    let value = match text.split_once('/') {
        Some((a, b)) => part(a)? / part(b)?,
        None => return text.trim().parse::<f32>().ok().filter(|v| v.is_finite()),
    };
    Some(value as f32).filter(|v| v.is_finite())
}

/// Shapes by the names of inputs.
pub(crate) fn shapes(list: &[String], ports: &[Port]) -> Result<Vec<(String, Vec<usize>)>> {
    let parse = |(name, text): (String, String)| {
        known(ports, &name, "--shape")?;
        let bad = || Error::usage(format!("--shape {name}={text}: expected sizes of at least 1, separated by commas"));
        let size = |s: &str| s.trim().parse::<usize>().ok().filter(|&s| s > 0).ok_or_else(bad);
        let sizes = text.split(',').map(size).collect::<Result<Vec<_>>>()?;
        Ok((name, sizes))
    };
    named("--shape", list, ports)?.into_iter().map(parse).collect()
}

/// Refuses a file in a folder that does not exist, before anything is computed for it.
pub(super) fn has_folder(file: &Path) -> Result<()> {
    let Some(folder) = file.parent().filter(|f| !f.as_os_str().is_empty()) else { return Ok(()) };
    let found = match std::fs::metadata(folder) {
        Ok(m) if !m.is_dir() => Err(std::io::ErrorKind::NotADirectory.into()),
        other => other,
    };
    let cause = || format!("cannot write {}: its folder cannot be used", file.display());
    found.map(|_| ()).map_err(|e: std::io::Error| Error::failure(cause(), e))
}

/// Refuses names that the model does not have.
pub(super) fn known<'a>(ports: &'a [Port], name: &str, option: &str) -> Result<&'a Port> {
    ports.iter().find(|p| p.name == name).ok_or_else(|| {
        let names: Vec<&str> = ports.iter().map(|p| p.name.as_str()).collect();
        Error::usage(format!("{option} {name}: the model has no such name, but {}", names.join(", ")))
    })
}

/// How pixels become numbers and numbers pixels: `(pixel - mean) * scale`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pixels {
    mean: Vec<f32>,
    /// `None` where none is given.
    scale: Option<Vec<f32>>,
    channels: Option<ChannelsArg>,
    layout: LayoutOfPictures,
}

/// Where the axes of a picture are in a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axes {
    pub(super) rank: usize,
    pub(super) channel: usize,
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Pixels {
    pub(super) fn new(args: &PictureArgs) -> Result<Pixels> {
        let list = |option: &str, text: &str| {
            let expected = "expected one number, or one for each of 3 channels, as 0.5 or 1/255";
            let bad = || Error::usage(format!("{option} '{text}': {expected}"));
            let list = text.split(',').map(|s| number(s).ok_or_else(bad)).collect::<Result<Vec<_>>>()?;
            if matches!(list.len(), 1 | 3) { Ok(list) } else { Err(bad()) }
        };
        let scale = args.scale.as_ref().map(|text| list("--scale", text)).transpose()?;
        if scale.iter().flatten().any(|&s| s == 0.0) {
            return Err(Error::usage("--scale: 0 would make all pixels the same"));
        }
        Ok(Pixels { mean: list("--mean", &args.mean)?, scale, channels: args.channels, layout: args.layout })
    }

    /// Where a picture's axes are in a tensor of this shape.
    pub(super) fn axes(&self, shape: &[Option<usize>]) -> Option<Axes> {
        let rank = shape.len();
        let lead = rank.checked_sub(3)?;
        let colours = |at: usize| matches!(shape[at], Some(1 | 3));
        let last = match self.layout {
            LayoutOfPictures::Auto => colours(rank - 1) && !colours(lead),
            LayoutOfPictures::Nchw => false,
            LayoutOfPictures::Nhwc => true,
        };
        let fits = lead <= 1 && (lead == 0 || shape[0].is_none_or(|n| n == 1));
        let axes = match last {
            true => Axes { rank, channel: rank - 1, height: lead, width: lead + 1 },
            false => Axes { rank, channel: lead, height: lead + 1, width: lead + 2 },
        };
        (fits && shape[axes.channel].is_none_or(|c| c == 1 || c == 3)).then_some(axes)
    }

    /// What pixels are multiplied by: without `--scale` they are from 0 to 1 as floats, and stay as they are as whole numbers.
    fn scale_of(&self, dtype: DType) -> &[f32] {
        match &self.scale {
            Some(scale) => scale,
            None if dtype.is_float() => &[1.0 / 255.0],
            None => &[1.0],
        }
    }

    fn of(list: &[f32], channel: usize) -> f32 {
        *list.get(channel).or(list.first()).unwrap_or(&0.0)
    }

    /// The place in a pixel of a tensor's channel.
    fn place(&self, channel: usize, channels: usize) -> usize {
        if channels == 3 && self.channels == Some(ChannelsArg::Bgr) { 2 - channel } else { channel }
    }

    /// The tensor of a picture, scaled to the sizes that are known.
    pub(super) fn tensor(&self, name: &str, p: Picture, dtype: DType, shape: &[Option<usize>]) -> Result<Tensor> {
        let Some(axes) = self.axes(shape) else {
            let text = format!("--input {name}: a picture for an input of shape {}", sizes(shape));
            return Err(Error::usage(format!("{text}: expected 1 or 3 channels, a height and a width (see --layout)")));
        };
        let wanted = match self.channels {
            Some(ChannelsArg::Gray) => Some(1),
            Some(_) => Some(3),
            None => None,
        };
        let channels = shape[axes.channel].or(wanted).unwrap_or(p.channels);
        let (h, w) = (shape[axes.height].unwrap_or(p.height), shape[axes.width].unwrap_or(p.width));
        // A request that no memory can hold is an error of the tensor, before anything is scaled.
        let mut full = vec![1; axes.rank];
        (full[axes.channel], full[axes.height], full[axes.width]) = (channels, h, w);
        let failed = |e| Error::of("cannot make the input", e);
        Tensor::zeros(&full, DType::F32).map_err(failed)?;
        let scale = self.scale_of(dtype);
        let p = p.with_channels(channels)?.scaled(w, h)?;
        let mut values = picture::numbers(p.values.len())?;
        values.resize(p.values.len(), 0.0);
        for (i, pixel) in p.values.chunks_exact(channels).enumerate() {
            for c in 0..channels {
                let at = if axes.channel > axes.height { i * channels + c } else { c * h * w + i };
                let v = pixel[self.place(c, channels)];
                values[at] = (v - Pixels::of(&self.mean, c)) * Pixels::of(scale, c);
            }
        }
        if !dtype.is_float() {
            values.iter_mut().for_each(|v| *v = v.round_ties_even());
        }
        elements::tensor(&values, dtype, &full).map_err(failed)
    }

    /// The picture that a tensor's values stand for: they are rounded and cut to 0 to 255, what is no number is 0.
    pub(super) fn picture(&self, name: &str, t: &Tensor) -> Result<Picture<u8>> {
        let shape: Vec<Option<usize>> = t.shape().iter().map(|&s| Some(s)).collect();
        let Some(axes) = self.axes(&shape) else {
            let text = format!("--output {name}: shape {} is none of a picture", sizes(&shape));
            return Err(Error::usage(format!("{text}: write it to a .npy file")));
        };
        let (channels, h, w) = (t.shape()[axes.channel], t.shape()[axes.height], t.shape()[axes.width]);
        let failed = |e| Error::of("cannot read the output", e);
        let scale = self.scale_of(t.dtype());
        let data: Vec<f32> = elements::of(t, |all| all.map(|v| v as f32).collect()).map_err(failed)?;
        let mut values = vec![0; data.len()];
        for i in 0..h * w {
            for c in 0..channels {
                let at = if axes.channel > axes.height { i * channels + c } else { c * h * w + i };
                let v = data[at] / Pixels::of(scale, c) + Pixels::of(&self.mean, c);
                values[i * channels + self.place(c, channels)] = v.round() as u8;
            }
        }
        Ok(Picture { width: w, height: h, channels, values })
    }
}

/// What a port is, as it is told to people.
pub(crate) fn kind(of: &PortType) -> String {
    match of {
        PortType::Tensor { dtype, .. } => format!("a tensor of {dtype}"),
        PortType::Sequence => "a sequence of tensors".to_string(),
        PortType::Optional => "a value that may be missing".to_string(),
        PortType::Other(what) => format!("{what}, which is not supported"),
    }
}

/// A shape as it is told to people.
pub(crate) fn sizes(shape: &[Option<usize>]) -> String {
    let list: Vec<String> = shape.iter().map(|s| s.map_or("?".to_string(), |s| s.to_string())).collect();
    format!("[{}]", list.join(","))
}

/// What is known of an input's shape: what `--shape` says, else the model.
pub(crate) fn shape_of(port: &Port, shapes: &[(String, Vec<usize>)]) -> Option<(DType, Option<Vec<Option<usize>>>)> {
    let PortType::Tensor { dtype, shape } = &port.of else { return None };
    let given = shapes.iter().find(|(n, _)| *n == port.name);
    Some((*dtype, given.map(|(_, s)| s.iter().map(|&s| Some(s)).collect()).or_else(|| shape.clone())))
}

/// An input.
pub(super) struct Given {
    pub(super) name: String,
    pub(super) tensor: Tensor,
    /// Width and height of the picture that it was, where it was scaled.
    pub(super) scaled_from: Option<[usize; 2]>,
    /// Its axes, where some of its sizes are the picture's since nothing says others.
    pub(super) open: Option<Axes>,
}

/// Reads one input. A picture is `whole` where it keeps its size whatever the model states.
pub(super) fn read(
    port: &Port,
    value: &str,
    shapes: &[(String, Vec<usize>)],
    pixels: &Pixels,
    seed: u64,
    whole: bool,
) -> Result<Given> {
    let given = |tensor| Given { name: port.name.clone(), tensor, scaled_from: None, open: None };
    let name = &port.name;
    let Some((dtype, shape)) = shape_of(port, shapes) else {
        let what = kind(&port.of);
        return Err(Error::usage(format!(
            "--input {name}: it is {what}, and only tensors of known dtypes can be given"
        )));
    };
    if value == "random" {
        return random(name, dtype, shape, seed).map(given);
    }
    let path = PathBuf::from(value);
    if picture::is_picture(&path) {
        let picture = Picture::read(&path)?;
        // A model that leaves everything open gets channels, height and width.
        let mut shape = shape.unwrap_or_else(|| vec![None; 3]);
        let axes = pixels.axes(&shape);
        if let Some(axes) = axes.filter(|_| whole && !shapes.iter().any(|(n, _)| n == name)) {
            (shape[axes.height], shape[axes.width]) = (None, None);
        }
        let (width, height) = (picture.width, picture.height);
        let tensor = pixels.tensor(name, picture, dtype, &shape)?;
        let same =
            |a: &Axes| (tensor.shape().get(a.width), tensor.shape().get(a.height)) == (Some(&width), Some(&height));
        let scaled_from = axes.filter(|a| !same(a)).map(|_| [width, height]);
        let open = axes.filter(|a| shape[a.height].is_none() || shape[a.width].is_none());
        return Ok(Given { scaled_from, open, ..given(tensor) });
    }
    if !path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npy")) {
        let text = format!("--input {name}={value}: expected random, or a file that ends in .npy, .png, .jpg or .jpeg");
        return Err(Error::usage(text));
    }
    Tensor::load_npy(&path).map(given).map_err(|e| Error::of(&format!("cannot read {}", path.display()), e))
}

/// Sizes of pictures, given to a model that leaves them open and cannot take these: what `--shape` may say so that it can.
fn sizes_that_fit(model: &Model, given: &[Given]) -> Option<String> {
    let fits = |step: usize| {
        let mut shapes = vec![];
        for g in given {
            let mut shape = g.tensor.shape().to_vec();
            if let Some(Axes { height, width, .. }) = g.open {
                for axis in [height, width] {
                    shape[axis] = shape[axis].checked_next_multiple_of(step)?;
                }
            }
            shapes.push(shape);
        }
        let argument = |(g, shape): (&Given, &Vec<usize>)| {
            let t = Tensor::zeros(shape, g.tensor.dtype()).ok()?;
            Some((g.name.clone(), Value::Tensor(t)))
        };
        let arguments = given.iter().zip(&shapes).map(argument).collect::<Option<Vec<_>>>()?;
        model.trace(&arguments).ok()?;
        let options = given.iter().zip(&shapes).filter(|(g, _)| g.open.is_some()).map(|(g, shape)| {
            let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
            format!("--shape {}={}", g.name, sizes.join(","))
        });
        Some(options.collect::<Vec<_>>().join(" "))
    };
    (1..=7).find_map(|n| fits(1 << n))
}

/// An error of a model, with what to do where it is a picture's size that does not fit.
pub(super) fn cannot_take(e: winograph::Error, model: &Model, given: &[Given]) -> Error {
    let of_model = matches!(e, winograph::Error::Model(_));
    let error = Error::of("cannot run the model", e);
    let options = (of_model && given.iter().any(|g| g.open.is_some())).then(|| sizes_that_fit(model, given)).flatten();
    match (error, options) {
        (Error::Failure { what, cause }, Some(options)) => {
            let hint = "the model leaves the size of the picture open and cannot take that of this one: scale it by";
            Error::failure(what, format!("{cause}\n{hint} {options}"))
        }
        (error, _) => error,
    }
}

fn random(name: &str, dtype: DType, shape: Option<Vec<Option<usize>>>, seed: u64) -> Result<Tensor> {
    let known = shape.as_ref().and_then(|s| s.iter().copied().collect::<Option<Vec<usize>>>());
    let Some(shape) = known else {
        let text = shape.map_or("[..]".to_string(), |s| sizes(&s));
        let text = format!("--input {name}=random: the model leaves its shape open, {text}");
        return Err(Error::usage(format!("{text}: give it by --shape {name}=SIZES")));
    };
    let made = match dtype {
        DType::Bool => Tensor::randint(0, 2, &shape, DType::U8, seed).and_then(|t| {
            let values: Vec<bool> = t.to_vec::<u8>()?.into_iter().map(|v| v != 0).collect();
            Tensor::from_slice(&values, &shape)
        }),
        d if d.is_float() => Tensor::rand(&shape, d, seed),
        d => Tensor::randint(0, 2, &shape, d, seed),
    };
    made.map_err(|e| Error::of("cannot make the input", e))
}

/// Writes one output: a picture or an array, as its name says.
pub(super) fn write(name: &str, t: &Tensor, path: &Path, pixels: &Pixels) -> Result<()> {
    let failed = |e: &dyn std::fmt::Display| Error::failure(format!("cannot write {}", path.display()), e);
    let bytes = match picture::is_picture(path) {
        true => pixels.picture(name, t)?.to_png()?,
        false => t.to_npy().map_err(|e| Error::of("cannot write the output", e))?,
    };
    winograph::files::write_atomically(path, &bytes).map_err(|e| failed(&e))
}

/// Refuses names of files that [`write`] could not write.
pub(super) fn writable(name: &str, file: &str) -> Result<PathBuf> {
    let path = PathBuf::from(file);
    let known = |e: &std::ffi::OsStr| e.eq_ignore_ascii_case("npy") || e.eq_ignore_ascii_case("png");
    if path.extension().is_some_and(known) {
        return Ok(path);
    }
    Err(Error::usage(format!("--output {name}={file}: expected a file that ends in .npy or .png")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixels(layout: LayoutOfPictures, channels: Option<ChannelsArg>) -> Pixels {
        let (mean, scale) = (vec![10.0, 20.0, 30.0], Some(vec![0.5, 0.25, 0.125]));
        Pixels { mean, scale, channels, layout }
    }

    #[test]
    fn pictures_become_tensors_and_pictures_again() {
        let values: Vec<f32> = (0..2 * 3 * 3).map(|i| (i * 13 % 256) as f32).collect();
        let p = Picture { width: 3, height: 2, channels: 3, values };
        for (layout, shape) in [
            (LayoutOfPictures::Auto, [None, Some(3), None, None]),
            (LayoutOfPictures::Auto, [Some(1), None, None, Some(3)]),
            (LayoutOfPictures::Nchw, [None, None, None, None]),
        ] {
            for order in [None, Some(ChannelsArg::Bgr)] {
                let how = pixels(layout, order);
                let t = how.tensor("x", p.clone(), DType::F32, &shape).unwrap();
                let back = how.picture("x", &t).unwrap();
                assert!(back.values.iter().zip(&p.values).all(|(&a, &b)| f32::from(a) == b));
            }
        }
        let t = pixels(LayoutOfPictures::Nchw, Some(ChannelsArg::Bgr));
        let t = t.tensor("x", p.clone(), DType::F32, &[None; 3]).unwrap();
        assert_eq!(t.shape(), [3, 2, 3]);
        // Blue comes first, with the first mean and scale.
        assert_eq!(t.to_vec::<f32>().unwrap()[0], (p.values[2] - 10.0) * 0.5);
    }

    #[test]
    fn inputs_are_made_in_every_dtype_without_a_kernel() {
        let picture = Picture { width: 1, height: 2, channels: 1, values: vec![14.0, 265.0] };
        for dtype in
            [DType::Bool, DType::U8, DType::I8, DType::I32, DType::I64, DType::F16, DType::BF16, DType::F32, DType::F64]
        {
            let t = random("x", dtype, Some(vec![Some(5), Some(7)]), 3).unwrap();
            assert_eq!((t.dtype(), t.shape()), (dtype, &[5, 7][..]));
            let how = Pixels { scale: None, ..pixels(LayoutOfPictures::Nchw, None) };
            let t = how.tensor("x", picture.clone(), dtype, &[None; 3]).unwrap();
            assert_eq!((t.dtype(), t.shape()), (dtype, &[1, 2, 1][..]));
            // Read as f32 by a kernel: what is no f32 yet.
            let values = t.cast(DType::F32).unwrap().to_vec::<f32>().unwrap();
            let expected = match dtype {
                DType::Bool => [1.0, 1.0],
                DType::I8 => [4.0, 127.0],
                d if d.is_int() => [4.0, 255.0],
                _ => [4.0 / 255.0, 1.0],
            };
            assert!(values.iter().zip(expected).all(|(v, e)| (v - e).abs() < 1e-4), "{dtype}: {values:?}");
        }
    }

    #[test]
    fn shapes_that_are_no_pictures_are_refused() {
        let how = pixels(LayoutOfPictures::Auto, None);
        for shape in [&[Some(1), Some(5), None, None][..], &[Some(2), Some(3), None, None], &[None, None], &[None; 5]] {
            assert!(how.axes(shape).is_none(), "{shape:?}");
        }
        assert!(named("--input", &["x".to_string()], &[]).is_err());
        assert!(named("--input", &["x=a".to_string(), "x=b".to_string()], &[]).is_err());
        assert!(writable("y", "a.jpg").is_err() && writable("y", "a.PNG").is_ok());
    }

    #[test]
    fn names_with_equals_signs_are_found_as_the_longest_that_is_known() {
        let port = |name: &&str| Port { name: name.to_string(), of: PortType::Sequence };
        let ports: Vec<Port> = ["a", "a=b", "é="].iter().map(port).collect();
        for (item, name, value) in [
            ("a=c", "a", "c"),
            ("a=b=c", "a=b", "c"),
            ("a=bc=d", "a", "bc=d"),
            ("é==f=g.npy", "é=", "f=g.npy"),
            ("z=q", "z", "q"),
        ] {
            assert_eq!(split("--input", item, &ports).unwrap(), (name, value));
        }
        assert!(split("--input", "a=b=", &ports).is_err() && split("--input", "=c", &ports).is_err());
        let both = named("--input", &["a=b=1".to_string(), "a=c".to_string()], &ports).unwrap();
        assert_eq!(both.iter().map(|b| b.0.as_str()).collect::<Vec<_>>(), ["a=b", "a"]);
    }

    #[test]
    fn numbers_may_be_fractions() {
        assert_eq!((number("1/255"), number(" 0.5 "), number("-3 / 4")), (Some(1.0 / 255.0), Some(0.5), Some(-0.75)));
        for bad in ["1/0", "1/", "/2", "1/2/3", "nan", "1e99", "", "x"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }
}
