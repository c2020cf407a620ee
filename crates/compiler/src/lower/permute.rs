//! Vectors put together from other vectors by shuffles of two, as few as are found.
//!
//! What a lane holds is named by an element; where elements come from and what they mean is the caller's. A vector whose
//! elements are all in two others that are there already is one shuffle of them. Others are trees: their sources are
//! combined in pairs, and as a pair gives a vector only a part of its lanes, vectors with the same pair share a shuffle
//! while there is room. So four vectors of every fourth element come from four windows by 4 + 4 shuffles.

/// An element: a run of neighbours in memory, and a place in it.
pub(super) type Elem = (usize, i64);

/// A vector's elements; `None` where anything will do.
pub(super) type Lanes = Vec<Option<Elem>>;

/// How a vector comes about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// One of the sources.
    Source(usize),
    /// A vector that is there under another number.
    Same(usize),
    /// Lanes of two vectors put one after the other.
    Shuffle {
        /// First vector.
        a: usize,
        /// Second vector.
        b: usize,
        /// For each lane, where it comes from.
        pattern: Box<[u32]>,
    },
}

/// A vector of a network.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// What it holds.
    pub(super) lanes: Lanes,
    /// How it comes about.
    pub(super) from: From,
}

/// Vectors and how they come from the sources.
#[derive(Clone, Debug)]
pub(super) struct Network {
    /// All vectors, the sources first.
    pub(super) nodes: Vec<Node>,
    /// The vector that is each output.
    pub(super) outputs: Vec<usize>,
}

/// Part of an output: a vector and the elements taken from it.
type Part = (usize, Vec<Elem>);

/// Outputs made of sources, all of `lanes` lanes. `None` where an element is in no source.
pub(super) fn network(lanes: usize, sources: &[Lanes], outputs: &[Lanes]) -> Option<Network> {
    let source = |(n, lanes): (usize, &Lanes)| Node { lanes: lanes.clone(), from: From::Source(n) };
    let mut net = Network { nodes: sources.iter().enumerate().map(source).collect(), outputs: Vec::new() };
    let mut trees: Vec<(usize, Vec<Part>)> = Vec::new();
    for wanted in outputs {
        if let Some(same) = net.nodes.iter().position(|n| n.lanes == *wanted) {
            net.outputs.push(same);
            continue;
        }
        let node = match net.pair_with(wanted) {
            Some((a, b)) => net.shuffle(a, b, wanted.clone())?,
            None => {
                trees.push((net.nodes.len(), net.cover(sources.len(), wanted)?));
                net.nodes.push(Node { lanes: wanted.clone(), from: From::Same(0) });
                net.nodes.len() - 1
            }
        };
        net.outputs.push(node);
    }
    while trees.iter().any(|t| t.1.len() > 2) {
        net.combine(lanes, &mut trees)?;
    }
    for (node, parts) in trees {
        let a = parts.first()?.0;
        let b = parts.last()?.0;
        let made = net.shuffle(a, b, net.nodes[node].lanes.clone())?;
        net.nodes[node].from = if made == a || made == b { From::Same(made) } else { net.nodes.pop()?.from };
    }
    Some(net)
}

impl Network {
    /// Sources and shuffles that the outputs need.
    pub(super) fn cost(&self) -> usize {
        let mut needed = vec![false; self.nodes.len()];
        let mut stack = self.outputs.clone();
        while let Some(n) = stack.pop() {
            if std::mem::replace(&mut needed[n], true) {
                continue;
            }
            match self.nodes[n].from {
                From::Source(_) => {}
                From::Same(a) => stack.push(a),
                From::Shuffle { a, b, .. } => stack.extend([a, b]),
            }
        }
        needed.iter().zip(&self.nodes).filter(|(n, node)| **n && !matches!(node.from, From::Same(_))).count()
    }

    fn place(&self, node: usize, e: Elem) -> Option<usize> {
        self.nodes[node].lanes.iter().position(|l| *l == Some(e))
    }

    /// Two vectors, or one twice, that hold all elements of another one.
    fn pair_with(&self, wanted: &Lanes) -> Option<(usize, usize)> {
        let elements: Vec<Elem> = wanted.iter().flatten().copied().collect();
        let missing =
            |n: usize| -> Vec<Elem> { elements.iter().copied().filter(|&e| self.place(n, e).is_none()).collect() };
        let all: Vec<Vec<Elem>> = (0..self.nodes.len()).map(missing).collect();
        if let Some(n) = all.iter().position(Vec::is_empty) {
            return Some((n, n));
        }
        let useful: Vec<usize> = (0..all.len()).filter(|&n| all[n].len() < elements.len()).collect();
        for (i, &a) in useful.iter().enumerate() {
            let holds_rest = |b: &&usize| all[a].iter().all(|&e| self.place(**b, e).is_some());
            if let Some(&b) = useful[i + 1..].iter().find(holds_rest) {
                return Some((a, b));
            }
        }
        None
    }

    /// The sources that hold a vector's elements, those that hold many of them first; in the order of the sources.
    fn cover(&self, sources: usize, wanted: &Lanes) -> Option<Vec<Part>> {
        let mut left: Vec<Elem> = wanted.iter().flatten().copied().collect();
        let mut parts: Vec<Part> = Vec::new();
        while !left.is_empty() {
            let held = |n: &usize| left.iter().filter(|&&e| self.place(*n, e).is_some()).count();
            let best = (0..sources).max_by_key(|n| (held(n), std::cmp::Reverse(*n)))?;
            let (taken, rest): (Vec<Elem>, Vec<Elem>) = left.iter().partition(|&&e| self.place(best, e).is_some());
            if taken.is_empty() {
                return None;
            }
            parts.push((best, taken));
            left = rest;
        }
        parts.sort_by_key(|p| p.0);
        Some(parts)
    }

    /// A shuffle that gives these lanes; the first vector itself where it has them.
    fn shuffle(&mut self, a: usize, b: usize, lanes: Lanes) -> Option<usize> {
        if let Some(&same) = [a, b]
            .iter()
            .find(|&&n| lanes.iter().zip(&self.nodes[n].lanes).all(|(wanted, held)| wanted.is_none() || wanted == held))
        {
            return Some(same);
        }
        let count = self.nodes[a].lanes.len();
        let pattern = lanes.iter().enumerate().map(|(lane, e)| {
            let Some(e) = *e else { return Some(lane as u32) };
            self.place(a, e).or_else(|| self.place(b, e).map(|p| count + p)).map(|p| p as u32)
        });
        let pattern = pattern.collect::<Option<Box<[u32]>>>()?;
        self.nodes.push(Node { lanes, from: From::Shuffle { a, b, pattern } });
        Some(self.nodes.len() - 1)
    }

    /// One level of all trees: neighbouring parts become one.
    fn combine(&mut self, lanes: usize, trees: &mut [(usize, Vec<Part>)]) -> Option<()> {
        /// Two vectors, and what is taken from them for which parts of which trees.
        type Pair = ((usize, usize), Vec<(usize, usize, Vec<Elem>)>);
        let mut pairs: Vec<Pair> = Vec::new();
        for (t, (_, parts)) in trees.iter().enumerate().filter(|(_, t)| t.1.len() > 2) {
            for (at, two) in parts.chunks_exact(2).enumerate() {
                let key = (two[0].0, two[1].0);
                let elements = two.iter().flat_map(|p| p.1.iter().copied()).collect();
                match pairs.iter_mut().find(|p| p.0 == key) {
                    Some(p) => p.1.push((t, at, elements)),
                    None => pairs.push((key, vec![(t, at, elements)])),
                }
            }
        }
        let mut made: Vec<(usize, usize, Part)> = Vec::new();
        for ((a, b), users) in pairs {
            let mut bins: Vec<(Vec<Elem>, Vec<usize>)> = Vec::new();
            for (n, (_, _, elements)) in users.iter().enumerate() {
                let room = |bin: &&mut (Vec<Elem>, Vec<usize>)| {
                    bin.0.len() + elements.iter().filter(|e| !bin.0.contains(e)).count() <= lanes
                };
                match bins.iter_mut().find(room) {
                    Some(bin) => {
                        let new: Vec<Elem> = elements.iter().copied().filter(|e| !bin.0.contains(e)).collect();
                        bin.0.extend(new);
                        bin.1.push(n);
                    }
                    None => bins.push((elements.clone(), vec![n])),
                }
            }
            for (elements, of) in bins {
                let mut wanted: Lanes = elements.into_iter().map(Some).collect();
                wanted.resize(lanes, None);
                let node = self.shuffle(a, b, wanted)?;
                made.extend(of.into_iter().map(|n| (users[n].0, users[n].1, (node, users[n].2.clone()))));
            }
        }
        for (t, (_, parts)) in trees.iter_mut().enumerate().filter(|(_, t)| t.1.len() > 2) {
            let odd = if parts.len() % 2 == 1 { parts.pop() } else { None };
            let mut mine: Vec<(usize, Part)> = made.iter().filter(|m| m.0 == t).map(|m| (m.1, m.2.clone())).collect();
            mine.sort_by_key(|m| m.0);
            *parts = mine.into_iter().map(|m| m.1).chain(odd).collect();
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs of neighbouring elements, `lanes` at each start.
    fn windows(lanes: i64, starts: &[Elem]) -> Vec<Lanes> {
        starts.iter().map(|&(run, start)| (0..lanes).map(|l| Some((run, start + l))).collect()).collect()
    }

    fn strided(lanes: i64, s: i64, offset: i64) -> Lanes {
        (0..lanes).map(|l| Some((0, s * l + offset))).collect()
    }

    /// Checks by running the shuffles on the elements themselves; the number of shuffles.
    #[track_caller]
    fn check(lanes: usize, sources: &[Lanes], outputs: &[Lanes]) -> usize {
        let net = network(lanes, sources, outputs).unwrap();
        fn run(net: &Network, n: usize, depth: usize) -> Lanes {
            assert!(depth < 64);
            match &net.nodes[n].from {
                From::Source(_) => net.nodes[n].lanes.clone(),
                From::Same(a) => run(net, *a, depth + 1),
                From::Shuffle { a, b, pattern } => {
                    let both = [run(net, *a, depth + 1), run(net, *b, depth + 1)].concat();
                    pattern.iter().map(|&p| both[p as usize]).collect()
                }
            }
        }
        for (wanted, &node) in outputs.iter().zip(&net.outputs) {
            let got = run(&net, node, 0);
            assert!(wanted.iter().zip(&got).all(|(w, g)| w.is_none() || w == g), "{wanted:?} is {got:?}");
        }
        net.cost() - sources.len()
    }

    #[test]
    fn deinterleaving_takes_few_levels() {
        for lanes in [4i64, 8, 16] {
            for (s, levels) in [(2, 1), (4, 2), (8, if lanes == 4 { 2 } else { 3 })] {
                let starts: Vec<Elem> = (0..s).map(|k| (0, k * lanes)).collect();
                let outputs: Vec<Lanes> = (0..s).map(|p| strided(lanes, s, p)).collect();
                assert_eq!(check(lanes as usize, &windows(lanes, &starts), &outputs), (s * levels) as usize);
            }
        }
    }

    #[test]
    fn interleaving_takes_as_many() {
        for lanes in [4i64, 8, 16] {
            for (s, levels) in [(2, 1), (4, 2), (8, if lanes == 4 { 2 } else { 3 })] {
                let starts: Vec<Elem> = (0..s).map(|k| (0, k * lanes)).collect();
                let values: Vec<Lanes> = (0..s).map(|p| strided(lanes, s, p)).collect();
                assert_eq!(check(lanes as usize, &values, &windows(lanes, &starts)), (s * levels) as usize);
            }
        }
    }

    /// The input tile of F(4,3): six offsets, of which two are their neighbours shifted.
    #[test]
    fn offsets_beyond_the_stride_take_one_shuffle() {
        let starts: Vec<Elem> = [0, 16, 32, 48, 50].map(|s| (0, s)).to_vec();
        let outputs: Vec<Lanes> = (0..6).map(|p| strided(16, 4, p)).collect();
        assert_eq!(check(16, &windows(16, &starts), &outputs), 10);
        assert_eq!(check(16, &windows(16, &starts[..4]), &outputs[..1]), 3);
    }

    #[test]
    fn odd_strides_rows_and_reversal() {
        let starts: Vec<Elem> = [0, 16, 32].map(|s| (0, s)).to_vec();
        let outputs: Vec<Lanes> = (0..3).map(|p| strided(16, 3, p)).collect();
        assert_eq!(check(16, &windows(16, &starts), &outputs), 6);
        // Four rows of four tiles, of which lanes take every fourth element.
        let rows = |p: i64| -> Lanes { (0..16).map(|l| Some((l as usize / 4, l % 4 * 4 + p))).collect() };
        let starts: Vec<Elem> = (0..4).map(|r| (r, 0)).collect();
        assert_eq!(check(16, &windows(16, &starts), &[rows(0), rows(1), rows(2), rows(3)]), 8);
        let reversed: Lanes = (0..16).map(|l| Some((0, 15 - l))).collect();
        assert_eq!(check(16, &windows(16, &[(0, 0)]), &[reversed.clone(), reversed]), 1);
        assert!(network(16, &windows(16, &[(0, 0)]), &[strided(16, 2, 0)]).is_none());
    }
}
