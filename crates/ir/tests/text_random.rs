//! Random graphs round-trip through the text form, and random damage to texts is refused without a panic.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use winograph_ir::indexed::{BufId, Buffer, Def, Graph, Origin, Role, Scope, Source, Table, TableId, Val, ValId};
use winograph_ir::linear::{Access, Code, Instr, LoopKind, Memory, MemoryDecl, Reg, Stmt, Type};
use winograph_ir::tensor::{NodeId, TensorGraph, TensorOp};
use winograph_ir::text::{
    parse_indexed, parse_linear, parse_scalar, parse_tensor, print_indexed, print_linear, print_tensor,
};
use winograph_ir::{BinaryOp, DType, IntId, Ints, RangeId, RangeRole, ReduceOp, Scalar, SumOrder, UnaryOp};

/// Choices drawn from a list of random numbers, then zeros.
struct Choices(std::vec::IntoIter<u64>);

impl Choices {
    fn new(entropy: Vec<u64>) -> Choices {
        Choices(entropy.into_iter())
    }

    fn any(&mut self) -> u64 {
        self.0.next().unwrap_or(0)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.any() % n as u64) as usize
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn scalar(&mut self, dtype: DType) -> Scalar {
        Scalar::from_bits(dtype, self.any())
    }

    fn int(&mut self, ints: &mut Ints, atoms: &[IntId], depth: usize) -> IntId {
        let c = self.below(9) as i64 - 3;
        if depth == 0 {
            return ints.constant(c);
        }
        match self.below(8) {
            0 => ints.constant(c),
            1..=3 => self.of(atoms),
            4 => {
                let terms: Vec<_> =
                    (0..3).map(|_| (self.int(ints, atoms, depth - 1), self.below(7) as i64 - 3)).collect();
                ints.sum(&terms, c)
            }
            5 => {
                let (a, b) = (self.int(ints, atoms, depth - 1), self.int(ints, atoms, depth - 1));
                ints.mul(a, b)
            }
            6 => {
                let a = self.int(ints, atoms, depth - 1);
                let d = self.divisor(ints, atoms);
                ints.div(a, d)
            }
            _ => {
                let a = self.int(ints, atoms, depth - 1);
                let d = self.divisor(ints, atoms);
                ints.rem(a, d)
            }
        }
    }

    fn divisor(&mut self, ints: &mut Ints, atoms: &[IntId]) -> IntId {
        // The first two atoms are parameters of at least 1.
        match self.below(4) {
            0 => self.of(&atoms[..2]),
            _ => {
                let d = self.of(&[1, 2, 3, 4, 6, 8, 64]);
                ints.constant(d)
            }
        }
    }

    fn gate(&mut self, ints: &mut Ints, atoms: &[IntId]) -> Vec<IntId> {
        (0..self.below(4)).map(|_| self.int(ints, atoms, 2)).collect()
    }
}

fn atoms(c: &mut Choices, ints: &mut Ints) -> (Vec<IntId>, Vec<RangeId>) {
    let (n, m) = (ints.new_param("n", 1, 8), ints.new_param("m!", 2, 1000));
    let mut atoms = vec![ints.param(n), ints.param(m)];
    if c.below(4) == 0 {
        let chunk = ints.new_host_param(7);
        atoms.push(ints.param(chunk));
    }
    let ranges: Vec<RangeId> = (0..6)
        .map(|_| {
            let size = match c.below(3) {
                0 => atoms[c.below(2)],
                _ => {
                    let size = c.of(&[2, 3, 4, 16, 64]);
                    ints.constant(size)
                }
            };
            ints.new_range(size, c.of(&[RangeRole::Map, RangeRole::Reduce]))
        })
        .collect();
    atoms.extend(ranges.iter().map(|&r| ints.range(r)));
    (atoms, ranges)
}

fn random_indexed(entropy: Vec<u64>) -> Graph {
    let mut c = Choices::new(entropy);
    let mut g = Graph::new();
    let (atoms, ranges) = atoms(&mut c, &mut g.ints);
    for n in 0..4 {
        let shape = (0..2).map(|_| atoms[c.below(2)]).collect();
        let origin = c.of(&[Origin::Argument(n), Origin::Constant(n), Origin::Output(n), Origin::Internal]);
        let scope = c.of(&[Scope::Register, Scope::Scratch, Scope::Shared, Scope::Global]);
        let dtype = c.of(&DType::ALL);
        let layout = match c.below(2) {
            0 => None,
            _ => Some(g.row_major(&atoms[..2])),
        };
        g.add_buffer(Buffer { name: format!("b{n}"), dtype, shape, origin, scope, layout });
    }
    for _ in 0..2 {
        let dtype = c.of(&DType::ALL);
        let values = (0..6).map(|_| c.scalar(dtype)).collect();
        g.add_table(Table { shape: vec![2, 3], dtype, values });
    }
    let tables = g.tables.len();
    for d in 0..3 {
        let mut vals: Vec<ValId> = vec![g.constant(Scalar::one(DType::F32))];
        for _ in 0..c.below(14) {
            let x = c.of(&vals);
            let [y, z] = [c.of(&vals), c.of(&vals)].map(|v| {
                let dtype = g.dtype(x);
                g.add(Val::Cast { x: v, dtype })
            });
            let dtype = c.of(&DType::ALL);
            let v = match c.below(11) {
                0 => {
                    let s = c.scalar(dtype);
                    g.constant(s)
                }
                1 => {
                    let value = c.int(&mut g.ints, &atoms, 3);
                    g.add(Val::Index { value, dtype })
                }
                2 | 3 => {
                    let src = match c.below(4) {
                        0 => Source::Table(TableId(c.below(tables) as u32)),
                        _ => Source::Buffer(BufId(c.below(4) as u32)),
                    };
                    let index = [c.int(&mut g.ints, &atoms, 3), c.int(&mut g.ints, &atoms, 2)];
                    let gate = c.gate(&mut g.ints, &atoms);
                    let dtype = g.source_dtype(src);
                    let fill = if c.below(2) == 0 { Scalar::zero(dtype) } else { c.scalar(dtype) };
                    let dynamic = (c.below(4) == 0).then_some((1, x));
                    match g.ints.conjunction(&gate) {
                        None => g.constant(fill),
                        Some(gate) => g.add(Val::Load { src, index: index.into(), gate, fill, dynamic }),
                    }
                }
                4 => {
                    let op = c.of(&UnaryOp::ALL);
                    g.unary(op, x)
                }
                5 => {
                    let op = c.of(&BinaryOp::ALL);
                    g.binary(op, x, y)
                }
                6 => g.add(Val::Fma { a: x, b: y, c: z }),
                7 => g.add(Val::Where { cond: x, a: y, b: z }),
                8 => {
                    let bits = c.below(2) == 0;
                    g.add(if bits { Val::Bitcast { x, dtype } } else { Val::Cast { x, dtype } })
                }
                9 => {
                    let gate = c.gate(&mut g.ints, &atoms);
                    g.select(&gate, x, y)
                }
                _ => {
                    let bound = (0..c.below(3)).map(|_| c.of(&ranges)).collect();
                    let (op, order) = (c.of(&ReduceOp::ALL), c.of(&SumOrder::ALL));
                    g.add(Val::Reduce { op, ranges: bound, order, fused: c.below(2) == 0, x })
                }
            };
            vals.push(v);
        }
        let axes = (0..2).map(|_| c.of(&ranges)).collect();
        let value = vals[vals.len() - 1];
        let role = c.of(&Role::ALL);
        g.defs.push(Def { buffer: BufId(d), axes, value, keep: c.below(2) == 0, repeat: c.below(2) == 0, role });
    }
    g
}

fn random_tensor(entropy: Vec<u64>) -> TensorGraph {
    let mut c = Choices::new(entropy);
    let mut g = TensorGraph::new();
    let (atoms, _) = atoms(&mut c, &mut g.ints);
    let mut nodes: Vec<NodeId> = Vec::new();
    for slot in 0..3 {
        let shape = (0..3).map(|_| c.of(&atoms[..2])).collect();
        nodes.push(g.add(TensorOp::Input { slot, dtype: c.of(&DType::ALL), shape }));
    }
    for _ in 0..c.below(16) {
        let (x, a, b) = (c.of(&nodes), c.of(&nodes), c.of(&nodes));
        let shape = g.node(x).shape.clone();
        let rank = shape.len();
        let list = |c: &mut Choices, ints: &mut Ints| -> Vec<IntId> {
            (0..rank).map(|_| c.int(ints, &atoms[..2], 3)).collect()
        };
        let op = match c.below(14) {
            0 => TensorOp::Unary { op: c.of(&UnaryOp::ALL), x },
            1 => TensorOp::Binary { op: c.of(&BinaryOp::ALL), a: x, b: a },
            2 => TensorOp::Where { cond: x, a, b },
            3 => TensorOp::Cast { x, dtype: c.of(&DType::ALL) },
            4 => TensorOp::Reshape { x, shape: list(&mut c, &mut g.ints) },
            5 => {
                let mut order: Vec<usize> = (0..rank).collect();
                order.rotate_left(c.below(rank.max(1)).min(rank));
                TensorOp::Permute { x, order }
            }
            6 => TensorOp::Pad {
                x,
                before: list(&mut c, &mut g.ints),
                after: list(&mut c, &mut g.ints),
                value: c.scalar(DType::F32),
            },
            7 => TensorOp::Slice {
                x,
                start: list(&mut c, &mut g.ints),
                step: (0..rank).map(|_| c.below(5) as i64 - 2).collect(),
                size: list(&mut c, &mut g.ints),
            },
            8 if rank > 0 => TensorOp::Unfold {
                x,
                axis: c.below(rank),
                size: 1 + c.below(4),
                stride: 1 + c.below(3),
                dilation: 1 + c.below(2),
            },
            9 if rank > 0 => TensorOp::Cat { parts: vec![x, x], axis: c.below(rank) },
            10 if rank > 0 => TensorOp::Gather { x, axis: c.below(rank), index: x },
            11 if rank > 0 => TensorOp::Reduce {
                op: c.of(&ReduceOp::ALL),
                x,
                axes: vec![c.below(rank)],
                order: c.of(&SumOrder::ALL),
                fused: c.below(2) == 0,
                rule: None,
            },
            12 => TensorOp::Full { value: c.scalar(DType::F64), shape },
            _ => TensorOp::Contiguous { x },
        };
        nodes.push(g.add(op));
    }
    g.outputs = vec![nodes[nodes.len() - 1], c.of(&nodes)];
    g
}

fn random_linear(entropy: Vec<u64>) -> Code {
    let mut c = Choices::new(entropy);
    let mut ints = Ints::new();
    let (atoms, ranges) = atoms(&mut c, &mut ints);
    let mut g = Graph::new();
    g.ints = ints;
    let layout = g.row_major(&atoms[..2]);
    let mut ints = g.ints;
    let memory = |name: &str, origin, scope| MemoryDecl {
        name: name.to_string(),
        dtype: DType::F32,
        shape: atoms[..2].to_vec(),
        layout: layout.clone(),
        scope,
        origin,
        written: true,
        swizzle: 0,
        streamed: false,
    };
    let args = vec![memory("x", Origin::Argument(0), Scope::Global)];
    let locals = vec![memory("y", Origin::Internal, Scope::Shared)];
    let mut regs = vec![Type { dtype: DType::F32, lanes: 1 }];
    let mut body = vec![Stmt::Let { reg: Reg(0), instr: Instr::Const(c.scalar(DType::F32)) }];
    for _ in 0..c.below(20) {
        let known = regs.len();
        let reg = |c: &mut Choices| Reg(c.below(known) as u32);
        let lane = (c.below(2) == 0).then(|| c.of(&ranges));
        let gate = c.gate(&mut ints, &atoms);
        let Some(gate) = ints.conjunction(&gate) else { continue };
        let access = Access {
            mem: c.of(&[Memory::Arg(0), Memory::Local(0)]),
            index: [c.int(&mut ints, &atoms, 3), c.int(&mut ints, &atoms, 3)].into(),
            addr: c.int(&mut ints, &atoms, 4),
            gate: gate.clone(),
            lane,
            dynamic: None,
        };
        let (a, b) = (reg(&mut c), reg(&mut c));
        let instr = match c.below(11) {
            0 => Instr::Load { access, fill: c.scalar(DType::F32) },
            1 => Instr::Index { value: access.addr, lane },
            2 => Instr::Select { gate, lane, a, b },
            3 => Instr::Binary { op: c.of(&BinaryOp::ALL), a, b },
            4 => {
                body.push(Stmt::Store { access, value: a });
                continue;
            }
            5 => {
                body.push(Stmt::If { gate, body: vec![Stmt::Set { reg: a, value: b }] });
                continue;
            }
            6 => {
                body.push(Stmt::Barrier(Scope::Shared));
                continue;
            }
            10 => {
                body.push(Stmt::Prefetch { mem: access.mem, addr: access.addr });
                continue;
            }
            7 => Instr::Pack { lanes: [a, b, a].into() },
            8 => Instr::Shuffle { a, b, pattern: (0..c.below(9)).map(|_| c.below(40) as u32).collect() },
            _ => Instr::Const(c.scalar(DType::F64)),
        };
        body.push(Stmt::Let { reg: Reg(known as u32), instr });
        regs.push(Type { dtype: DType::F32, lanes: 1 + c.below(16) as u32 });
    }
    for range in ranges {
        let kind = c.of(&[LoopKind::Grid, LoopKind::Thread, LoopKind::Serial]);
        body = vec![Stmt::Loop { range, kind, body }];
    }
    Code { name: "k".to_string(), role: Role::Other, ints, args, locals, tables: vec![], units: vec![], regs, body }
}

fn entropy() -> impl Strategy<Value = Vec<u64>> {
    proptest::collection::vec(any::<u64>(), 0..400)
}

/// Cuts, doubles and exchanges pieces of a text.
fn damage(text: &str, entropy: Vec<u64>) -> String {
    const PIECES: [&str; 40] = [
        "%",
        "%0",
        "[",
        "]",
        "(",
        ")",
        "{",
        "}",
        ":",
        ",",
        "=",
        "+",
        "-",
        "*",
        "/",
        "0",
        "1",
        "9223372036854775807",
        "99999999999999999999",
        "2305843009213693951",
        "-1",
        "r0",
        "r1",
        "n",
        "x",
        "f32",
        "1.0f32",
        "nan:7fc00000f32",
        "\n",
        " ",
        "\"",
        "\\",
        "if ",
        "lane ",
        "load ",
        "reduce ",
        "and ",
        "é",
        ";",
        "4096",
    ];
    let mut c = Choices::new(entropy);
    let mut tokens: Vec<String> = Vec::new();
    let mut last = ' ';
    for ch in text.chars() {
        match tokens.last_mut() {
            Some(t) if ch.is_alphanumeric() && last.is_alphanumeric() => t.push(ch),
            _ => tokens.push(ch.to_string()),
        }
        last = ch;
    }
    for _ in 0..1 + c.below(4) {
        let (a, b) = (c.below(tokens.len()), c.below(tokens.len()));
        match c.below(5) {
            0 => drop(tokens.remove(a)),
            1 => tokens[a] = c.of(&PIECES).to_string(),
            2 => tokens.insert(a, c.of(&PIECES).to_string()),
            3 => tokens.swap(a, b),
            _ => tokens[a] = tokens[b].clone(),
        }
        if tokens.is_empty() {
            break;
        }
    }
    tokens.concat()
}

/// Whatever parses prints, and what is printed parses to something that prints the same.
fn survives(text: &str) {
    if let Ok(g) = parse_tensor(text) {
        let once = print_tensor(&g);
        let back = parse_tensor(&once).unwrap_or_else(|e| panic!("{e}\n{once}"));
        assert_eq!(print_tensor(&back), once);
    }
    if let Ok(g) = parse_indexed(text) {
        let once = print_indexed(&g);
        let back = parse_indexed(&once).unwrap_or_else(|e| panic!("{e}\n{once}"));
        assert_eq!(print_indexed(&back), once);
    }
    if let Ok(g) = parse_linear(text) {
        let once = print_linear(&g);
        let back = parse_linear(&once).unwrap_or_else(|e| panic!("{e}\n{once}"));
        assert_eq!(print_linear(&back), once);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn scalars(dtype in 0..DType::ALL.len(), bits: u64) {
        let s = Scalar::from_bits(DType::ALL[dtype], bits);
        prop_assert_eq!(parse_scalar(&s.to_string()), Ok(s));
    }

    #[test]
    fn tensor_graphs(entropy in entropy()) {
        let once = print_tensor(&random_tensor(entropy));
        let back = parse_tensor(&once);
        prop_assert!(back.is_ok(), "{:?}\n{}", back.err(), once);
        prop_assert_eq!(print_tensor(&back.unwrap()), once);
    }

    #[test]
    fn indexed_graphs(entropy in entropy()) {
        let once = print_indexed(&random_indexed(entropy));
        let back = parse_indexed(&once);
        prop_assert!(back.is_ok(), "{:?}\n{}", back.err(), once);
        prop_assert_eq!(print_indexed(&back.unwrap()), once);
    }

    #[test]
    fn linear_code(entropy in entropy()) {
        let once = print_linear(&random_linear(entropy));
        let back = parse_linear(&once);
        prop_assert!(back.is_ok(), "{:?}\n{}", back.err(), once);
        prop_assert_eq!(print_linear(&back.unwrap()), once);
    }

    #[test]
    fn damaged_random_texts(graph in entropy(), hits in entropy()) {
        survives(&damage(&print_tensor(&random_tensor(graph.clone())), hits.clone()));
        survives(&damage(&print_indexed(&random_indexed(graph.clone())), hits.clone()));
        survives(&damage(&print_linear(&random_linear(graph)), hits));
    }

    #[test]
    fn damaged_filetests(hits in entropy(), file in 0..100usize) {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../filetests/text");
        let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        paths.sort();
        let text = std::fs::read_to_string(&paths[file % paths.len()]).unwrap();
        let input = text.split("\n; expect").next().unwrap();
        survives(&damage(input, hits));
    }

    #[test]
    fn arbitrary_text(text in any::<String>()) {
        survives(&text);
    }
}

#[test]
fn hostile_texts_are_refused() {
    let deep = format!("map r0:{}1{}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(parse_indexed(&deep).is_err());
    let loops = format!("kernel k\nbody {{\n{}", "loop r0:2 serial {\n".repeat(100_000));
    assert!(parse_linear(&loops).is_err());
    let power = format!("param n 1..8\nparam m 1..8\nmap r0:({}1)", "(n + m + 1)*".repeat(10_000));
    assert!(parse_indexed(&power).is_err());
    let quotients = format!("param n 1..8\nmap r0:(1000{})", "/n".repeat(100_000));
    assert!(parse_indexed(&quotients).is_err());
    for text in [
        "%0 = input 99999999999 : f32[4]",
        "%0 = table f32[2147483647, 2147483647, 2147483647] []",
        "%0 = table f32[0, 5] [1]",
        "%99999999999 = full 1.0f32 : f32[]",
        "%0 = full 1.0f32 : f32[9223372036854775807]",
        "%0 = full 1.0f32 : f32[2305843009213693951*2]",
        "%0 = full 1.0f32 : f32[4/0]",
        "%0 = full 1.0f32 : f32[4]\n%1 = unfold %0 axis 0 size 0 stride 1 dilation 1",
        "%0 = full 1.0f32 : f32[4]\n%1 = permute %0 [1]",
        "%0 = full 1.0f32 : f32[4]\n%1 = cat axis 1 %0",
        "%0 = full 1.0f32 : f32[4]\n%1 = reduce add any [0, 0] %0",
        "%0 = full 1.0f32 : f32[4]\n%1 = pad %0 before [] after [] value 0.0f32",
        "%0 = neg %0",
    ] {
        assert!(parse_tensor(text).is_err(), "{text}");
    }
}
