//! The text of a `.param` file: a magic number, two counts, and a line for each layer.

use crate::model::ModelError;

/// First line of a file.
pub(crate) const MAGIC: &str = "7767517";

/// Most bytes of a file: real ones have some hundred kilobytes.
const MAX_TEXT: usize = 64 << 20;

/// Keys below this are lists: `-23300 - id`.
const LISTS: i64 = -23300;

/// A size that stands for "not given".
pub(crate) const NONE: i64 = -233;

/// What stands behind a key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Param {
    /// A number, and whether it is written as an integer.
    Number(f64, bool),
    /// Several.
    List(Vec<f64>),
    /// Anything else, as it is written.
    Text(String),
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Layer {
    /// Its operator.
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: Vec<String>,
    params: Vec<(i64, Param)>,
}

fn wrong(line: usize, cause: impl Into<String>) -> ModelError {
    ModelError::format(format!("line {}", line + 1), cause)
}

/// Reads a file's text.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<Layer>, ModelError> {
    if bytes.len() > MAX_TEXT {
        return Err(ModelError::format("model", format!("a .param file of more than {MAX_TEXT} bytes")));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| {
        ModelError::format("model", "not text: the binary form of .param files is not supported, its text form is")
    })?;
    let mut lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#'));
    match lines.next() {
        Some((_, l)) if l.trim() == MAGIC => {}
        Some((n, l)) => return Err(wrong(n, format!("{:?}, where the magic number {MAGIC} is expected", short(l)))),
        None => return Err(ModelError::format("model", "an empty .param file")),
    }
    let (n, counts) = lines.next().ok_or_else(|| ModelError::format("model", "the file ends before its counts"))?;
    let numbers: Vec<usize> = counts.split_whitespace().filter_map(|w| w.parse().ok()).collect();
    let &[layer_count, blob_count] = &numbers[..] else {
        return Err(wrong(n, format!("{:?}, where the numbers of layers and of blobs are expected", short(counts))));
    };
    let mut layers = Vec::new();
    for (n, line) in lines {
        layers.push(layer(n, line)?);
    }
    if layers.len() != layer_count {
        return Err(wrong(n, format!("{layer_count} layers are announced, {} are there", layers.len())));
    }
    let blobs: usize = layers.iter().map(|l| l.outputs.len()).sum();
    // Files that were edited announce more than there are, which ncnn takes.
    if blobs > blob_count {
        return Err(wrong(
            n,
            format!("{blob_count} blobs are announced, {blobs} are there: the second number is too small"),
        ));
    }
    Ok(layers)
}

/// What a message shows of a line.
fn short(line: &str) -> String {
    line.chars().take(60).collect()
}

fn layer(n: usize, line: &str) -> Result<Layer, ModelError> {
    let mut words = line.split_whitespace();
    let mut next = |what: &str| words.next().ok_or_else(|| wrong(n, format!("the line ends before {what}")));
    let (kind, name) = (next("the layer's type")?.to_string(), next("the layer's name")?.to_string());
    let mut count = |what: &str| -> Result<usize, ModelError> {
        let word = next(what)?;
        word.parse().map_err(|_| wrong(n, format!("layer {name}: {:?}, where {what} is expected", short(word))))
    };
    let (inputs, outputs) = (count("the number of inputs")?, count("the number of outputs")?);
    // Counted by what is there: a number alone allocates nothing.
    let mut names = |count: usize, what: &str| -> Result<Vec<String>, ModelError> {
        let mut out = Vec::new();
        for i in 0..count {
            let missing = || wrong(n, format!("layer {name}: {i} of its {count} {what} are named"));
            out.push(words.next().filter(|w| !w.contains('=')).ok_or_else(missing)?.to_string());
        }
        Ok(out)
    };
    let (inputs, outputs) = (names(inputs, "inputs")?, names(outputs, "outputs")?);
    let mut params: Vec<(i64, Param)> = Vec::new();
    for word in words {
        let bad = || wrong(n, format!("layer {name}: {:?}, where key=value is expected", short(word)));
        let (key, value) = word.split_once('=').ok_or_else(bad)?;
        let key: i64 = key.parse().map_err(|_| bad())?;
        let is_list = key <= LISTS;
        let id = if is_list { LISTS - key } else { key };
        let param = if is_list {
            let mut items = value.split(',');
            let count: usize = items.next().and_then(|c| c.parse().ok()).ok_or_else(bad)?;
            let list: Vec<f64> = items.map(|v| v.parse().map_err(|_| bad())).collect::<Result<_, _>>()?;
            if list.len() != count {
                let cause = format!("layer {name}: parameter {id} announces {count} numbers, {} are there", list.len());
                return Err(wrong(n, cause));
            }
            Param::List(list)
        } else {
            match (value.parse::<i64>(), value.parse::<f64>()) {
                (Ok(i), _) => Param::Number(i as f64, true),
                (_, Ok(x)) => Param::Number(x, false),
                _ => Param::Text(value.to_string()),
            }
        };
        if params.iter().any(|(k, _)| *k == id) {
            return Err(wrong(n, format!("layer {name}: parameter {id} is there twice")));
        }
        params.push((id, param));
    }
    Ok(Layer { kind, name, inputs, outputs, params })
}

impl Layer {
    /// What is wrong with the layer.
    pub(crate) fn wrong(&self, cause: impl Into<String>) -> ModelError {
        ModelError::Node { node: self.name.clone(), op: self.kind.clone(), cause: cause.into() }
    }

    /// What this library does not have.
    pub(crate) fn unsupported(&self, cause: impl Into<String>) -> ModelError {
        ModelError::Unsupported { node: self.name.clone(), op: self.kind.clone(), cause: cause.into() }
    }

    fn get(&self, id: i64) -> Option<&Param> {
        self.params.iter().find(|(k, _)| *k == id).map(|(_, v)| v)
    }

    pub(crate) fn bad(&self, id: i64, field: &str, expected: &str) -> ModelError {
        let given = match self.get(id) {
            Some(Param::Number(x, _)) => x.to_string(),
            Some(Param::List(l)) => short(&format!("{l:?}")),
            Some(Param::Text(t)) => format!("{:?}", short(t)),
            None => "nothing".to_string(),
        };
        self.wrong(format!("{field} (parameter {id}) is {given}, expected {expected}"))
    }

    /// An integer of 32 bits.
    pub(crate) fn int(&self, id: i64, field: &str, default: i64) -> Result<i64, ModelError> {
        match self.get(id) {
            None => Ok(default),
            Some(&Param::Number(x, true)) if x.abs() <= f64::from(i32::MAX) => Ok(x as i64),
            _ => Err(self.bad(id, field, "an integer of 32 bits")),
        }
    }

    /// An integer that is not negative.
    pub(crate) fn size(&self, id: i64, field: &str, default: usize) -> Result<usize, ModelError> {
        match usize::try_from(self.int(id, field, default as i64)?) {
            Ok(size) => Ok(size),
            Err(_) => Err(self.bad(id, field, "a number of at least 0")),
        }
    }

    /// An integer of at least 1.
    pub(crate) fn positive(&self, id: i64, field: &str, default: usize) -> Result<usize, ModelError> {
        match self.size(id, field, default)? {
            0 => Err(self.bad(id, field, "a number of at least 1")),
            size => Ok(size),
        }
    }

    /// Whether something is switched on.
    pub(crate) fn flag(&self, id: i64, field: &str) -> Result<bool, ModelError> {
        match self.int(id, field, 0)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.bad(id, field, "0 or 1")),
        }
    }

    /// A float.
    pub(crate) fn float(&self, id: i64, field: &str, default: f64) -> Result<f64, ModelError> {
        match self.get(id) {
            None => Ok(default),
            Some(&Param::Number(x, _)) if !x.is_nan() => Ok(x),
            _ => Err(self.bad(id, field, "a number")),
        }
    }

    /// Several numbers; `None` where they are not given.
    pub(crate) fn list(&self, id: i64, field: &str) -> Result<Option<Vec<f64>>, ModelError> {
        match self.get(id) {
            None => Ok(None),
            Some(Param::List(l)) => Ok(Some(l.clone())),
            Some(_) => Err(self.bad(id, field, "a list of numbers")),
        }
    }

    /// Several integers of 32 bits.
    pub(crate) fn ints(&self, id: i64, field: &str) -> Result<Option<Vec<i64>>, ModelError> {
        let Some(list) = self.list(id, field)? else { return Ok(None) };
        let whole = |x: &f64| (x.fract() == 0.0 && x.abs() <= f64::from(i32::MAX)).then_some(*x as i64);
        match list.iter().map(whole).collect::<Option<Vec<i64>>>() {
            Some(list) => Ok(Some(list)),
            None => Err(self.bad(id, field, "a list of integers of 32 bits")),
        }
    }

    /// Refuses a parameter that asks for something else than its default.
    pub(crate) fn only_zero(&self, id: i64, field: &str, what: &str) -> Result<(), ModelError> {
        match self.int(id, field, 0)? {
            0 => Ok(()),
            _ => Err(self.unsupported(format!("{field} (parameter {id}): {what}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_layer() {
        let text = b"7767517\n2 3\nInput in 0 1 data 0=4 1=5 2=3\nSplit s 1 2 data a b -23310=2,0.5,-1 3=1e-3 4=x\n";
        let layers = parse(text).unwrap();
        assert_eq!((layers[0].kind.as_str(), layers[0].outputs[0].as_str()), ("Input", "data"));
        assert_eq!(layers[0].int(2, "c", 0).unwrap(), 3);
        assert_eq!(layers[1].list(10, "l").unwrap(), Some(vec![0.5, -1.0]));
        assert_eq!(layers[1].float(3, "x", 0.0).unwrap(), 1e-3);
        assert_eq!(layers[1].int(7, "none", 9).unwrap(), 9);
        let e = layers[1].int(4, "factor", 0).unwrap_err().to_string();
        assert!(e.contains("node s (Split)") && e.contains("factor (parameter 4) is \"x\""), "{e}");
        assert!(layers[1].int(3, "f", 0).is_err() && layers[1].ints(10, "l").is_err());
    }

    #[test]
    fn wrong_lines_are_named() {
        let cases: [(&[u8], &str); 11] = [
            (b"", "empty"),
            (b"7767518\n0 0\n", "magic number"),
            (b"7767517\n", "before its counts"),
            (b"7767517\n1\n", "numbers of layers"),
            (b"7767517\n2 1\nInput in 0 1 data\n", "2 layers are announced, 1 are there"),
            (b"7767517\n1 0\nInput in 0 1 data\n", "0 blobs are announced, 1 are there"),
            (b"7767517\n1 1\nInput in 0\n", "before the number of outputs"),
            (b"7767517\n1 1\nInput in 0 99999999999 data\n", "1 of its 99999999999 outputs"),
            (b"7767517\n1 1\nInput in 0 1 data 0\n", "key=value"),
            (b"7767517\n1 1\nInput in 0 1 data -23300=3,1\n", "announces 3 numbers"),
            (b"7767517\n1 1\nInput in 0 1 data 0=1 0=2\n", "there twice"),
        ];
        for (text, part) in cases {
            let e = parse(text).unwrap_err().to_string();
            assert!(e.contains(part), "{e}");
        }
        assert!(parse(b"\xff\xfe").unwrap_err().to_string().contains("binary form"));
    }
}
