//! Runs single tensor operations on `.npy` files, for comparison with another library: `bench/torch_ops.py` drives it.
//!
//! Reads one case a line on stdin, words separated by spaces: the operation, then `name=value` words. `in=PATH` is an
//! operand, `as=DTYPE` casts the operand before it, `out=PATH` takes the result (half floats as `f32`). Prints `ok DTYPE`
//! or `error SENTENCE` for each line.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use winograph::{ConvOptions, DType, Error, Number, PoolOptions, Result, SliceRange, Tensor};

/// A line taken apart.
#[derive(Default)]
struct Case {
    op: String,
    operands: Vec<Tensor>,
    words: BTreeMap<String, String>,
}

impl Case {
    fn read(line: &str) -> Result<Case> {
        let mut words = line.split_whitespace();
        let mut case = Case { op: words.next().unwrap_or_default().to_string(), ..Case::default() };
        for word in words {
            let Some((name, value)) = word.split_once('=') else { continue };
            match name {
                "in" => case.operands.push(Tensor::load_npy(value)?),
                "as" => {
                    let dtype = DType::from_name(value).ok_or_else(|| wrong(format!("the dtype {value}")))?;
                    let last = case.operands.pop().ok_or_else(|| wrong("as= before in=".to_string()))?;
                    case.operands.push(last.cast(dtype)?);
                }
                _ => {
                    case.words.insert(name.to_string(), value.to_string());
                }
            }
        }
        Ok(case)
    }

    fn list<T: std::str::FromStr>(&self, name: &str) -> Vec<T> {
        let text = self.words.get(name).map_or("", String::as_str);
        text.split(',').filter_map(|w| w.parse().ok()).collect()
    }

    fn one<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.words.get(name).and_then(|w| w.parse().ok())
    }

    fn is(&self, name: &str) -> bool {
        self.one::<u8>(name) == Some(1)
    }

    fn operand(&self, i: usize) -> Result<&Tensor> {
        self.operands.get(i).ok_or_else(|| wrong(format!("operand {i}, which is missing")))
    }

    /// The constant operand of an elementwise operation.
    fn number(&self) -> Option<Number> {
        match self.one::<i64>("number") {
            Some(i) => Some(Number::Int(i)),
            None => self.one::<f64>("number").map(Number::Float),
        }
    }

    fn pairs(&self, name: &str) -> Vec<(usize, usize)> {
        let list: Vec<usize> = self.list(name);
        match list[..] {
            [] => vec![],
            [one] => vec![(one, one)],
            _ => list.chunks_exact(2).map(|p| (p[0], p[1])).collect(),
        }
    }

    fn run(&self) -> Result<Tensor> {
        let x = self.operand(0)?;
        let axes = || self.list::<isize>("axes");
        let axis = || self.one::<isize>("axis").unwrap_or(0);
        let keep = self.is("keep");
        macro_rules! binary {
            ($method:ident) => {
                match self.number() {
                    Some(Number::Int(i)) => x.$method(i),
                    Some(Number::Float(f)) => x.$method(f),
                    Some(Number::Bool(b)) => x.$method(b),
                    None => x.$method(self.operand(1)?),
                }
            };
        }
        let pool = || PoolOptions {
            stride: self.list("stride"),
            padding: self.pairs("padding"),
            dilation: self.list("dilation"),
            ceil_mode: self.is("ceil"),
            count_include_pad: !self.is("exclude_pad"),
        };
        match self.op.as_str() {
            "add" => binary!(add),
            "sub" => binary!(sub),
            "mul" => binary!(mul),
            "div" => binary!(div),
            "div_trunc" => binary!(div_trunc),
            "div_floor" => binary!(div_floor),
            "fmod" => binary!(fmod),
            "remainder" => binary!(remainder),
            "pow" => binary!(pow),
            "maximum" => binary!(maximum),
            "minimum" => binary!(minimum),
            "lt" => binary!(lt),
            "le" => binary!(le),
            "gt" => binary!(gt),
            "ge" => binary!(ge),
            "eq" => binary!(eq),
            "ne" => binary!(ne),
            "where" => x.where_(self.operand(1)?, self.operand(2)?),
            "clamp" => x.clamp(self.one("min"), self.one("max")),
            "cast" => x.cast(self.one::<String>("dtype").and_then(|d| DType::from_name(&d)).unwrap_or(DType::F32)),
            "neg" => x.neg(),
            "abs" => x.abs(),
            "exp" => x.exp(),
            "log" => x.log(),
            "sqrt" => x.sqrt(),
            "rsqrt" => x.rsqrt(),
            "reciprocal" => x.reciprocal(),
            "square" => x.square(),
            "sign" => x.sign(),
            "sin" => x.sin(),
            "cos" => x.cos(),
            "tanh" => x.tanh(),
            "erf" => x.erf(),
            "floor" => x.floor(),
            "ceil" => x.ceil(),
            "trunc" => x.trunc(),
            "round" => x.round(),
            "isnan" => x.isnan(),
            "relu" => x.relu(),
            "leaky_relu" => x.leaky_relu(self.one("slope").unwrap_or(0.01)),
            "prelu" => x.prelu(self.operand(1)?),
            "sigmoid" => x.sigmoid(),
            "silu" => x.silu(),
            "gelu" => x.gelu(),
            "gelu_tanh" => x.gelu_tanh(),
            "sum" => x.sum(&axes(), keep),
            "prod" => x.prod(&axes(), keep),
            "mean" => x.mean(&axes(), keep),
            "var" => x.var(&axes(), !self.is("biased"), keep),
            "max" => x.max(&axes(), keep),
            "min" => x.min(&axes(), keep),
            "argmax" => x.argmax(self.one("axis"), keep),
            "argmin" => x.argmin(self.one("axis"), keep),
            "softmax" => x.softmax(axis()),
            "log_softmax" => x.log_softmax(axis()),
            "cumsum" => x.cumsum(axis()),
            "matmul" => x.matmul(self.operand(1)?),
            "conv" => {
                let options = ConvOptions {
                    stride: self.list("stride"),
                    padding: self.pairs("padding"),
                    dilation: self.list("dilation"),
                    groups: self.one("groups").unwrap_or(1),
                    ..ConvOptions::default()
                };
                x.conv(self.operand(1)?, self.operands.get(2), &options)
            }
            "max_pool" => x.max_pool(&self.list::<usize>("kernel"), &pool()),
            "avg_pool" => x.avg_pool(&self.list::<usize>("kernel"), &pool()),
            "reshape" => x.reshape(&self.list("shape")),
            "permute" => x.permute(&axes()),
            "transpose" => x.transpose(axis(), self.one("other").unwrap_or(0)),
            "expand" => x.expand(&self.list("shape")),
            "squeeze" => x.squeeze(&axes()),
            "unsqueeze" => x.unsqueeze(axis()),
            "flip" => x.flip(&axes()),
            "pad" => {
                let amounts: Vec<isize> = self.list("amounts");
                let amounts: Vec<(isize, isize)> = amounts.chunks_exact(2).map(|p| (p[0], p[1])).collect();
                x.pad(&amounts, self.number().unwrap_or(Number::Int(0)))
            }
            "slice" => {
                let range = SliceRange {
                    start: self.one("start"),
                    stop: self.one("stop"),
                    step: self.one("step").unwrap_or(1),
                };
                x.slice_axis(axis(), range)
            }
            "cat" => Tensor::cat(&self.operands.iter().collect::<Vec<_>>(), axis()),
            "stack" => Tensor::stack(&self.operands.iter().collect::<Vec<_>>(), axis()),
            "unfold" => x.unfold(axis(), self.one("size").unwrap_or(1), self.one("step").unwrap_or(1)),
            other => Err(wrong(format!("the operation {other}"))),
        }
    }
}

fn wrong(got: String) -> Error {
    Error::Argument {
        op: "tensor_ops",
        got,
        shapes: vec![],
        expected: "a line as bench/torch_ops.py writes".into(),
        hint: None,
    }
}

fn answer(line: &str) -> Result<DType> {
    let case = Case::read(line)?;
    let result = case.run()?;
    let dtype = result.dtype();
    // `.npy` has no bf16.
    let stored = if dtype.is_float() && dtype.size() == 2 { result.cast(DType::F32)? } else { result };
    stored.save_npy(case.words.get("out").map_or("", String::as_str))?;
    Ok(dtype)
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        match answer(&line?) {
            Ok(dtype) => writeln!(out, "ok {}", dtype.name())?,
            Err(e) => writeln!(out, "error {}", e.to_string().replace('\n', " "))?,
        }
        out.flush()?;
    }
    Ok(())
}
