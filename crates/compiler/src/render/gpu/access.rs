//! Loads and stores.
//!
//! A vector's lanes lie at `stride * lane + rest`. With neighbours (a stride of 1) and a `rest` that is proved to be a
//! multiple of 2, 4, 8 or 16 elements, so many lanes of up to 16 bytes are one access, where the gate holds for all of
//! them; the others are accessed one by one.

use super::Space;
use super::kernel::Kernel;
use super::shape::Home;
use crate::render::RenderError;
use crate::render::clike::{Elem, clamp, condition, int_literal, literal};
use winograph_ir::linear::{Access, Memory, ROW_BYTES, ROW_PART, ROWS_WARP, Reg, SWIZZLE_BYTES, TILE_ROW, Tile, Type};
use winograph_ir::{DType, IntId, RangeId, Scalar};

type Result<T> = std::result::Result<T, RenderError>;

/// Bytes of one access, at most; memory is aligned to as many.
const MAX_BYTES: usize = 16;

const FIELDS: [&str; 4] = ["x", "y", "z", "w"];

/// When something is done, per lane.
pub(super) enum Lanes {
    Always,
    /// In all lanes or in none.
    Uniform(String),
    /// In each lane by a condition of its own; the set of lanes is an interval.
    Each(Vec<String>),
}

impl Lanes {
    /// The condition of a lane; `None`: always.
    pub(super) fn lane(&self, l: usize) -> Option<&str> {
        match self {
            Lanes::Always => None,
            Lanes::Uniform(c) => Some(c),
            Lanes::Each(all) => all.get(l).map(|s| s.as_str()),
        }
    }

    /// The condition of all lanes from `first` to `last`.
    fn all(&self, first: usize, last: usize) -> Option<String> {
        match self {
            Lanes::Each(c) => Some(format!("{} && {}", c.get(first)?, c.get(last)?)),
            _ => self.lane(first).map(String::from),
        }
    }
}

/// The place of an access.
struct Place {
    pointer: String,
    space: Space,
    /// What the elements are in memory.
    elem: Elem,
    /// The offset of lane 0 in elements: a name or, for one lane, an expression.
    offset: String,
    stride: i64,
    /// Lanes that are one access.
    group: u32,
    /// The function that says where an element of swizzled memory lies.
    swizzle: Option<String>,
}

impl Place {
    fn element(&self, lane: u32) -> String {
        format!("{}[{}]", self.pointer, self.number(lane))
    }

    /// The number of a lane's element.
    fn number(&self, lane: u32) -> String {
        let number = match self.stride.saturating_mul(lane as i64) {
            0 => self.offset.clone(),
            c => format!("{} + {}", self.offset, int_literal(c)),
        };
        match &self.swizzle {
            Some(f) => format!("{f}({number})"),
            None => number,
        }
    }

    fn address(&self, lane: u32) -> String {
        format!("({} + {})", self.pointer, self.number(lane))
    }
}

/// The type of an access of several elements: as many fields of a type that holds `per_field` of them.
struct Group {
    ty: String,
    field: Elem,
    fields: usize,
    per_field: usize,
}

impl Group {
    fn new(elem: Elem, lanes: u32) -> Group {
        let bytes = elem.bytes() * lanes as usize;
        let (stem, field) = match (elem, bytes) {
            (Elem::F32, _) => ("float", Elem::F32),
            (Elem::F64, _) => ("double", Elem::F64),
            (Elem::I64 | Elem::U64, _) => ("longlong", Elem::I64),
            (Elem::I32, _) => ("int", Elem::I32),
            (_, 2) => ("ushort", Elem::U16),
            _ => ("uint", Elem::U32),
        };
        let fields = bytes / field.bytes();
        let ty = if fields == 1 { field.name().to_string() } else { format!("{stem}{fields}") };
        Group { ty, field, fields, per_field: field.bytes() / elem.bytes() }
    }

    fn field(&self, name: &str, n: usize) -> String {
        if self.fields == 1 { name.to_string() } else { format!("{name}.{}", FIELDS.get(n).unwrap_or(&"x")) }
    }

    /// Element `i` of the group called `name`.
    fn element(&self, elem: Elem, name: &str, i: usize) -> String {
        let field = self.field(name, i / self.per_field);
        match (i % self.per_field) * 8 * elem.bytes() {
            _ if self.per_field == 1 => field,
            0 => format!("({}){field}", elem.name()),
            shift => format!("({})({field} >> {shift})", elem.name()),
        }
    }

    /// The group that holds elements.
    fn pack(&self, elem: Elem, values: &[String]) -> String {
        let pack = |part: &[String]| {
            if self.per_field == 1 {
                return part.concat();
            }
            let bits = elem.unsigned().name();
            let shifted = part.iter().enumerate().map(|(i, v)| match i * 8 * elem.bytes() {
                0 => format!("(u32)({bits}){v}"),
                shift => format!("(u32)({bits}){v} << {shift}"),
            });
            shifted.collect::<Vec<_>>().join(" | ")
        };
        let fields: Vec<String> = values.chunks(self.per_field).map(pack).collect();
        if self.fields == 1 {
            format!("({})({})", self.field.name(), fields.concat())
        } else {
            format!("{}{{{}}}", self.ty, fields.join(", "))
        }
    }
}

impl Kernel<'_> {
    /// The lanes in which a gate holds; emits their conditions where there are several.
    pub(super) fn gate(&mut self, gate: &[IntId], lane: Option<RangeId>, lanes: u32) -> Result<Lanes> {
        let mut linear = Vec::with_capacity(gate.len());
        for &e in gate {
            linear.push(self.linear(e, lane)?);
        }
        let each = lanes > 1 && linear.iter().any(|l| l.coef != 0);
        let mut conditions = Vec::new();
        for l in 0..if each { lanes } else { 1 } {
            let mut parts = Vec::with_capacity(linear.len());
            for e in &linear {
                parts.push(format!("({})", self.at_lane(e, l)?));
            }
            conditions.extend(condition(parts));
        }
        if lanes == 1 || conditions.is_empty() {
            return Ok(conditions.pop().map_or(Lanes::Always, |c| Lanes::Uniform(format!("({c})"))));
        }
        let n = self.fresh();
        let names: Vec<String> = (0..conditions.len()).map(|l| format!("g{n}_{l}")).collect();
        self.declaration("const ", Type { dtype: DType::Bool, lanes: 1 }, &names, &conditions);
        Ok(if each { Lanes::Each(names) } else { Lanes::Uniform(names.concat()) })
    }

    fn place(&mut self, access: &Access, ty: Type, writes: bool) -> Result<Place> {
        let (decl, pointer, space) = match access.mem {
            Memory::Arg(i) => {
                let m = self.code.args.get(i as usize);
                (m.map(|m| (m.dtype, m.written, Elem::of(m.dtype))), self.arg_name(i), Space::Global)
            }
            Memory::Local(i) => {
                let m = self.code.locals.get(i as usize);
                let space = if self.home(i) == Home::Thread { Space::Thread } else { Space::Shared };
                (m.map(|m| (m.dtype, true, Elem::of(m.dtype))), self.local_name(i), space)
            }
            Memory::Table(i) => {
                let t = self.code.tables.get(i as usize);
                (t.map(|t| (t.dtype, false, self.table_elem(t))), self.table_name(i), self.table_space(i))
            }
        };
        let swizzle = match access.mem {
            Memory::Local(i) if space == Space::Shared => self.code.locals.get(i as usize).map_or(0, |m| m.swizzle),
            _ => 0,
        };
        let Some((dtype, writable, elem)) = decl else {
            return Err(self.malformed("an access to memory that is not there"));
        };
        self.expect(dtype == ty.dtype, "an access of the memory's dtype")?;
        self.expect(!writes || writable, "a store to memory that the kernel writes")?;
        let l = self.linear(access.addr, access.lane)?;
        let mut offset = self.at_lane(&l, 0)?;
        let mut width = self.lanes_type(&l, ty.lanes);
        let mut multiple = self.code.ints.divisor_of_sum(l.terms(), l.constant());
        if let Some(dynamic) = &access.dynamic {
            let t = self.reg_type(dynamic.index)?;
            self.expect(t.lanes == 1 && t.dtype.is_int(), "a scalar integer as dynamic index")?;
            let index = self.operand(dynamic.index, t)?;
            let (size, stride) = (self.expr(dynamic.size)?, self.expr(dynamic.stride)?);
            let clamp = clamp(self.lang);
            offset = format!("{clamp}({}, {size}) * {stride} + {offset}", index.lanes.concat());
            width = "i64";
            // The lowest bit of either is that of the powers of 2 which divide both.
            multiple = low_bit(multiple | self.divisor(dynamic.stride));
        }
        let stride = if ty.lanes == 1 { 0 } else { l.coef };
        if ty.lanes > 1 {
            let n = self.fresh();
            self.line(&format!("const {width} o{n} = {offset};"));
            offset = format!("o{n}");
        }
        let most = (MAX_BYTES / elem.bytes()).min(ty.lanes as usize) as u64;
        let group = match (stride, multiple) {
            (1, 0) => most,
            (1, m) => low_bit(m).min(most),
            _ => 1,
        };
        // As `linear::swizzled`, of elements.
        let swizzle = (swizzle > 0).then(|| {
            let (lines, pieces) = (128 / elem.bytes(), swizzle as usize / ROW_BYTES);
            let (line, piece) = (lines.trailing_zeros(), (ROW_BYTES / elem.bytes()).trailing_zeros());
            let text = format!("n ^ (n >> {line} & {}) << {piece}", pieces - 1);
            self.lang.define(format!("wg_swizzle{swizzle}_{}", elem.name()), &|f| {
                format!("WG_INLINE i32 {f}(i32 n) {{ return {text}; }}\n")
            })
        });
        Ok(Place { pointer, space, elem, offset, stride, group: group as u32, swizzle })
    }

    /// Emits a load into a register.
    pub(super) fn load(&mut self, reg: Reg, ty: Type, access: &Access, fill: Scalar) -> Result<()> {
        self.expect(fill.dtype() == ty.dtype, "a fill value of the register's dtype")?;
        let place = self.place(access, ty, false)?;
        let gate = self.gate(&access.gate, access.lane, ty.lanes)?;
        let fill = literal(&*self.lang, fill);
        let gated = |c: Option<&str>, text: String| match c {
            Some(c) => format!("{c} ? {text} : {fill}"),
            None => text,
        };
        if place.stride == 0 && !matches!(gate, Lanes::Each(_)) {
            let value = self.loaded(&place, ty.dtype, place.element(0));
            let one = Type { lanes: 1, ..ty };
            let names = self.declare(reg, one, false, None);
            self.declaration("const ", one, &names, &[gated(gate.lane(0), value)]);
            self.alias(reg, ty, vec![names.concat(); ty.lanes as usize], None);
            return Ok(());
        }
        if place.group <= 1 {
            let mut values = Vec::with_capacity(ty.lanes as usize);
            for l in 0..ty.lanes {
                let value = self.loaded(&place, ty.dtype, place.element(l));
                values.push(gated(gate.lane(l as usize), value));
            }
            self.define(reg, ty, &values);
            return Ok(());
        }
        let group = Group::new(place.elem, place.group);
        let pointer = self.lang.pointer(place.space, &group.ty, true);
        if matches!(gate, Lanes::Always) {
            let mut values = Vec::with_capacity(ty.lanes as usize);
            for first in (0..ty.lanes).step_by(place.group as usize) {
                let v = format!("v{}", self.fresh());
                self.line(&format!("const {} {v} = *({pointer}){};", group.ty, place.address(first)));
                for i in 0..place.group as usize {
                    let element = group.element(place.elem, &v, i);
                    values.push(self.loaded(&place, ty.dtype, element));
                }
            }
            // A field needs no name of its own.
            if group.per_field == 1 && place.elem == Elem::of(ty.dtype) && ty.dtype != DType::Bool {
                self.alias(reg, ty, values, None);
            } else {
                self.define(reg, ty, &values);
            }
            return Ok(());
        }
        let names = self.declare(reg, ty, false, None);
        self.declaration("", ty, &names, &vec![fill; ty.lanes as usize]);
        for first in (0..ty.lanes).step_by(place.group as usize) {
            let last = first + place.group - 1;
            let whole = gate.all(first as usize, last as usize).unwrap_or_else(|| "true".into());
            self.open(&format!("if ({whole}) {{"));
            self.line(&format!("const {} v = *({pointer}){};", group.ty, place.address(first)));
            for i in 0..place.group as usize {
                let element = group.element(place.elem, "v", i);
                let value = self.loaded(&place, ty.dtype, element);
                self.line(&format!("{} = {value};", names[first as usize + i]));
            }
            self.close();
            if let Lanes::Each(each) = &gate {
                self.open("else {");
                for l in first..=last {
                    let value = self.loaded(&place, ty.dtype, place.element(l));
                    self.line(&format!("if ({}) {} = {value};", each[l as usize], names[l as usize]));
                }
                self.close();
            }
        }
        Ok(())
    }

    /// A pointer to a factor in shared memory that is swizzled for it.
    pub(super) fn tile(&mut self, tile: &Tile, dtype: DType) -> Result<String> {
        let Memory::Local(i) = tile.access.mem else { return Err(self.malformed("a factor that is not shared")) };
        let swizzle = self.code.locals.get(i as usize).filter(|m| m.dtype == dtype).map_or(0, |m| m.swizzle);
        let dynamic = matches!(self.home(i), Home::Dynamic(at) if at % SWIZZLE_BYTES as usize == 0);
        let multiple = self.divisor(tile.base).is_multiple_of(SWIZZLE_BYTES as u64 / dtype.size().max(1) as u64);
        self.expect(swizzle as usize == TILE_ROW && dynamic && multiple, "a factor in swizzled shared memory")?;
        Ok(format!("{} + {}", self.local_name(i), self.expr(tile.base)?))
    }

    /// Emits the load of rows of small matrices.
    pub(super) fn rows(&mut self, reg: Reg, ty: Type, access: &Access, transposed: bool) -> Result<()> {
        let elem = Elem::of(ty.dtype);
        let (elements, part) = (ROW_BYTES / elem.bytes(), ROW_PART / elem.bytes().min(ROW_PART));
        self.expect(self.threads.is_multiple_of(ROWS_WARP), "whole warps around rows of matrices")?;
        self.expect(matches!(elem.bytes(), 2 | 4) && access.gate.is_empty(), "rows of 2 or 4 bytes without a gate")?;
        let place = self.place(access, Type { lanes: elements as u32, ..ty }, false)?;
        let fits = place.space == Space::Shared && place.stride == 1 && place.group as usize == elements;
        self.expect(fits, "rows of 16 bytes in shared memory")?;
        let f = self.lang.rows(elem, ty.lanes as usize / part, transposed);
        let names = self.declare(reg, ty, false, None);
        let t = self.type_name(ty.dtype);
        self.line(&format!("{t} {};", names.join(", ")));
        let thread = self.lang.thread();
        self.line(&format!("{f}({}, {}, {}, {thread});", names.join(", "), place.pointer, place.number(0)));
        Ok(())
    }

    /// Emits an asynchronous copy from global to shared memory; `false`, and nothing, where there is none that fits.
    pub(super) fn copy(&mut self, from: &Access, to: &Access, reg: Reg, fill: Scalar) -> Result<bool> {
        let ty = self.reg_type(reg)?;
        let lane_of = |gate: &[IntId], lane: Option<RangeId>, k: &Self| {
            lane.is_some_and(|l| gate.iter().any(|&g| k.code.ints.depends_on(g, l)))
        };
        if fill.bits() != 0 || lane_of(&from.gate, from.lane, self) || lane_of(&to.gate, to.lane, self) {
            return Ok(false);
        }
        let (source, target) = (self.place(from, ty, false)?, self.place(to, ty, true)?);
        let lanes = source.group.min(target.group).max(1);
        let bytes = source.elem.bytes() * lanes as usize;
        let fits = (source.space, target.space) == (Space::Global, Space::Shared) && source.elem == target.elem;
        let once = matches!(from.mem, Memory::Arg(n) if self.code.args.get(n as usize).is_some_and(|m| m.streamed));
        let Some(f) = self.lang.copy(bytes, once).filter(|_| fits) else { return Ok(false) };
        let (load, store) = (self.gate(&from.gate, from.lane, ty.lanes)?, self.gate(&to.gate, to.lane, ty.lanes)?);
        let any = load.lane(0).unwrap_or("true").to_string();
        if let Some(c) = store.lane(0) {
            self.open(&format!("if ({c}) {{"));
        } else {
            self.open("{");
        }
        for first in (0..ty.lanes).step_by(lanes as usize) {
            self.line(&format!("{f}({}, {}, {any});", target.address(first), source.address(first)));
        }
        self.close();
        Ok(true)
    }

    /// An element as it lies in memory, as a value: any byte but 0 is true.
    fn loaded(&mut self, place: &Place, dtype: DType, text: String) -> String {
        match Elem::of(dtype) {
            _ if dtype == DType::Bool => format!("({text} != 0)"),
            e if e == place.elem => text,
            e => format!("{}({text})", self.lang.bits(place.elem, e)),
        }
    }

    /// Emits a store.
    pub(super) fn store(&mut self, access: &Access, value: Reg) -> Result<()> {
        let ty = self.reg_type(value)?;
        let mut value = self.operand(value, ty)?.lanes;
        let place = self.place(access, ty, true)?;
        let gate = self.gate(&access.gate, access.lane, ty.lanes)?;
        self.expect(ty.lanes == 1 || place.stride != 0, "lanes stored to places of their own")?;
        if ty.dtype == DType::Bool {
            value = value.into_iter().map(|v| format!("(u8){v}")).collect();
        }
        if place.group <= 1 {
            for (l, v) in value.iter().enumerate() {
                let set = format!("{} = {v};", place.element(l as u32));
                match gate.lane(l) {
                    Some(c) => self.line(&format!("if ({c}) {set}")),
                    None => self.line(&set),
                }
            }
            return Ok(());
        }
        let group = Group::new(place.elem, place.group);
        let pointer = self.lang.pointer(place.space, &group.ty, false);
        for (n, values) in value.chunks(place.group as usize).enumerate() {
            let first = n as u32 * place.group;
            let last = first + place.group - 1;
            let set = format!("*({pointer}){} = {};", place.address(first), group.pack(place.elem, values));
            match gate.all(first as usize, last as usize) {
                None => self.line(&set),
                Some(whole) => self.line(&format!("if ({whole}) {set}")),
            }
            if let Lanes::Each(each) = &gate {
                self.open("else {");
                for (l, v) in (first..=last).zip(values) {
                    self.line(&format!("if ({}) {} = {v};", each[l as usize], place.element(l)));
                }
                self.close();
            }
        }
        Ok(())
    }
}

/// The greatest power of 2 that divides a number; 0 of 0.
fn low_bit(x: u64) -> u64 {
    x & x.wrapping_neg()
}
