//! The types of linear code: what each instruction asks of its operands. Used by the verifier and by the interpreter,
//! which runs well-typed code only.

use crate::linear::{Access, Code, Fragment, Instr, MatrixUnit, MemoryDecl, ROW_BYTES, ROW_PART, Reg, TILE_ROW, Type};
use crate::{DType, linear::Memory};

/// The registers an instruction reads, those of its access included.
pub(crate) fn operands(instr: &Instr) -> Vec<Reg> {
    match instr {
        Instr::Const(_) | Instr::Index { .. } => vec![],
        Instr::Tiles { tiles, c, .. } => {
            tiles.iter().flat_map(|t| t.access.dynamic.map(|d| d.index)).chain([*c]).collect()
        }
        Instr::Load { access, .. } | Instr::Rows { access, .. } => access.dynamic.iter().map(|d| d.index).collect(),
        Instr::Unary { x, .. }
        | Instr::Cast { x }
        | Instr::Bitcast { x }
        | Instr::Splat { x }
        | Instr::Fold { x, .. } => vec![*x],
        Instr::Binary { a, b, .. } | Instr::Select { a, b, .. } | Instr::Shuffle { a, b, .. } => vec![*a, *b],
        Instr::Fma { a, b, c } | Instr::Matrix { a, b, c, .. } => vec![*a, *b, *c],
        Instr::Where { cond, a, b } => vec![*cond, *a, *b],
        Instr::Pack { lanes } => lanes.to_vec(),
    }
}

/// A register's type, if it has one.
pub(crate) fn type_of(code: &Code, reg: Reg) -> Result<Type, String> {
    match code.regs.get(reg.0 as usize) {
        Some(t) if t.lanes.is_power_of_two() && t.lanes <= 1 << 16 => Ok(*t),
        Some(t) => Err(format!("r{} has {} lanes, which is no power of two up to 65536", reg.0, t.lanes)),
        None => Err(format!("r{} is not declared", reg.0)),
    }
}

/// The declaration of an argument or local; `None` for tables.
pub(crate) fn decl_of(code: &Code, mem: Memory) -> Result<Option<&MemoryDecl>, String> {
    match mem {
        Memory::Arg(i) => code.args.get(i as usize).map(Some).ok_or(format!("there is no argument {i}")),
        Memory::Local(i) => code.locals.get(i as usize).map(Some).ok_or(format!("there is no local {i}")),
        Memory::Table(i) if (i as usize) < code.tables.len() => Ok(None),
        Memory::Table(i) => Err(format!("there is no table {i}")),
    }
}

fn dtype_of(code: &Code, mem: Memory) -> Result<DType, String> {
    Ok(match (decl_of(code, mem)?, mem) {
        (Some(decl), _) => decl.dtype,
        (None, Memory::Table(i)) => code.tables[i as usize].dtype,
        (None, _) => return Err("memory is not declared".to_string()),
    })
}

fn expect(what: &str, found: Type, wanted: Type) -> Result<(), String> {
    if found == wanted {
        return Ok(());
    }
    Err(format!("{what} is {}x{}, wanted {}x{}", found.dtype, found.lanes, wanted.dtype, wanted.lanes))
}

/// Checks that an access moves lanes of type `ty`.
pub(crate) fn check_access(code: &Code, access: &Access, ty: Type) -> Result<(), String> {
    let dtype = dtype_of(code, access.mem)?;
    if dtype != ty.dtype {
        return Err(format!("memory of {dtype} is accessed as {}", ty.dtype));
    }
    check_lane(code, access.lane, ty)?;
    match access.dynamic {
        None => Ok(()),
        Some(d) => {
            let t = type_of(code, d.index)?;
            if t.lanes == 1 && t.dtype.is_int() {
                Ok(())
            } else {
                Err(format!("the dynamic index r{} is {}x{}, not a scalar integer", d.index.0, t.dtype, t.lanes))
            }
        }
    }
}

fn check_lane(code: &Code, lane: Option<crate::RangeId>, ty: Type) -> Result<(), String> {
    let Some(lane) = lane else { return Ok(()) };
    if lane.0 as usize >= code.ints.range_count() {
        return Err(format!("lane range {} does not exist", lane.0));
    }
    match code.ints.const_size(lane) {
        Some(n) if n == ty.lanes as i64 => Ok(()),
        Some(n) => Err(format!("the lane range has {n} values for {} lanes", ty.lanes)),
        None => Err("the lane range has no constant size".to_string()),
    }
}

/// Checks that a matrix unit can be run: three fragments over the same threads that hold each element of their matrix
/// once, in floats of at most 32 bits.
pub(crate) fn check_unit(u: &MatrixUnit) -> Result<(), String> {
    if !(2..=24).contains(&u.factor_bits) {
        return Err(format!("factors of {} significand bits", u.factor_bits));
    }
    let bits = u.c.thread_row.len();
    for (name, f, rows, cols) in [("a", &u.a, u.m, u.k), ("b", &u.b, u.k, u.n), ("c", &u.c, u.m, u.n)] {
        if !matches!(f.dtype, DType::F16 | DType::BF16 | DType::F32) {
            return Err(format!("fragment {name} of {}", f.dtype));
        }
        if f.thread_row.len() != bits || f.thread_col.len() != bits || bits > 10 {
            return Err(format!("fragment {name} is not over 2^{bits} threads, at most 2^10"));
        }
        let of_elements = f.element_row.len();
        if f.element_col.len() != of_elements || of_elements > 12 {
            return Err(format!("fragment {name} has rows and columns for other numbers of elements, or beyond 2^12"));
        }
        let places = (f.threads() as usize) * (f.elements() as usize);
        if (rows as usize).checked_mul(cols as usize) != Some(places) {
            return Err(format!("fragment {name} has {places} places for {rows} x {cols} elements"));
        }
        let mut held = vec![false; places];
        for t in 0..f.threads() {
            for e in 0..f.elements() {
                let (row, col) = f.place(t, e);
                if row >= rows || col >= cols {
                    return Err(format!("fragment {name}: element {e} of thread {t} is at ({row}, {col})"));
                }
                held[(row * cols + col) as usize] = true;
            }
        }
        if held.contains(&false) {
            return Err(format!("fragment {name} holds an element twice and another one not at all"));
        }
    }
    Ok(())
}

/// Checks that an instruction's operands fit it and that its result has type `ty`.
pub(crate) fn check_instr(code: &Code, ty: Type, instr: &Instr) -> Result<(), String> {
    let t = |r: Reg| type_of(code, r);
    let lanes = |dtype: DType| Type { dtype, lanes: ty.lanes };
    let scalar = Type { dtype: ty.dtype, lanes: 1 };
    match instr {
        Instr::Const(s) => expect("the constant", Type { dtype: s.dtype(), lanes: 1 }, ty),
        Instr::Index { lane, .. } => {
            if ty.dtype == DType::Bool {
                return Err("an index cannot be bool".to_string());
            }
            check_lane(code, *lane, ty)
        }
        Instr::Load { access, fill } => {
            if fill.dtype() != ty.dtype {
                return Err(format!("fill value {fill} in a load of {}", ty.dtype));
            }
            check_access(code, access, ty)
        }
        Instr::Rows { access, transposed } => {
            let size = ty.dtype.size();
            let part = ROW_PART / size.max(1);
            if !matches!(size, 2 | 4) || (*transposed && size != 2) {
                return Err(format!("rows of {}{}", ty.dtype, if *transposed { ", transposed" } else { "" }));
            }
            if !matches!(ty.lanes as usize / part, 1 | 2 | 4) || !(ty.lanes as usize).is_multiple_of(part) {
                return Err(format!("{} lanes of matrices of which a thread gets {part}", ty.lanes));
            }
            if access.lane.is_none() || access.dynamic.is_some() || !access.gate.is_empty() {
                return Err("a row without a lane, with a gate or at a dynamic index".to_string());
            }
            check_access(code, access, Type { dtype: ty.dtype, lanes: (ROW_BYTES / size) as u32 })
        }
        Instr::Unary { op, x } => {
            if !op.accepts(ty.dtype) {
                return Err(format!("{} is not defined on {}", op.name(), ty.dtype));
            }
            expect("the operand", t(*x)?, ty)
        }
        Instr::Binary { op, a, b } => {
            let of = t(*a)?;
            if !op.accepts(of.dtype) {
                return Err(format!("{} is not defined on {}", op.name(), of.dtype));
            }
            expect("the second operand", t(*b)?, of)?;
            expect("the result", ty, Type { dtype: op.result(of.dtype), lanes: of.lanes })
        }
        Instr::Fma { a, b, c } => {
            if ty.dtype == DType::Bool {
                return Err("fma is not defined on bool".to_string());
            }
            [a, b, c].into_iter().try_for_each(|r| expect("an operand", t(*r)?, ty))
        }
        Instr::Matrix { unit, a, b, c } => {
            let Some(u) = code.units.get(*unit as usize) else { return Err(format!("there is no matrix unit {unit}")) };
            check_unit(u)?;
            let of = |f: &Fragment| Type { dtype: f.dtype, lanes: f.elements() };
            expect("the first factor", t(*a)?, of(&u.a))?;
            expect("the second factor", t(*b)?, of(&u.b))?;
            expect("the addend", t(*c)?, of(&u.c))?;
            expect("the result", ty, of(&u.c))
        }
        Instr::Tiles { unit, tiles, c } => {
            let Some(u) = code.units.get(*unit as usize) else { return Err(format!("there is no matrix unit {unit}")) };
            check_unit(u)?;
            for (t, f, rows) in [(&tiles[0], &u.a, u.m), (&tiles[1], &u.b, u.n)] {
                let row = ((t.row.0 as usize) < code.ints.range_count()).then(|| code.ints.const_size(t.row)).flatten();
                if row != Some(rows as i64) {
                    return Err(format!("{row:?} rows of a factor of {rows}"));
                }
                if t.access.lane.is_none() || t.access.dynamic.is_some() || !t.access.gate.is_empty() {
                    return Err("a row without a lane, with a gate or at a dynamic index".to_string());
                }
                if u.k as usize * f.dtype.size() != TILE_ROW {
                    return Err(format!("rows of {} elements of {}, not of {TILE_ROW} bytes", u.k, f.dtype));
                }
                check_access(code, &t.access, Type { dtype: f.dtype, lanes: u.k })?;
            }
            let of = Type { dtype: u.c.dtype, lanes: u.c.elements() };
            expect("the addend", t(*c)?, of)?;
            expect("the result", ty, of)
        }
        Instr::Where { cond, a, b } => {
            expect("the condition", t(*cond)?, lanes(DType::Bool))?;
            [a, b].into_iter().try_for_each(|r| expect("a branch", t(*r)?, ty))
        }
        Instr::Select { lane, a, b, .. } => {
            check_lane(code, *lane, ty)?;
            [a, b].into_iter().try_for_each(|r| expect("a branch", t(*r)?, ty))
        }
        Instr::Cast { x } => {
            let of = t(*x)?;
            expect("the operand", of, lanes(of.dtype))
        }
        Instr::Bitcast { x } => {
            let of = t(*x)?;
            if of.dtype.size() != ty.dtype.size() {
                return Err(format!("{} and {} differ in size", of.dtype, ty.dtype));
            }
            expect("the operand", of, lanes(of.dtype))
        }
        Instr::Splat { x } => expect("the operand", t(*x)?, scalar),
        Instr::Pack { lanes } => {
            if lanes.len() != ty.lanes as usize {
                return Err(format!("{} scalars for {} lanes", lanes.len(), ty.lanes));
            }
            lanes.iter().try_for_each(|r| expect("a lane", t(*r)?, scalar))
        }
        Instr::Shuffle { a, b, pattern } => {
            let of = t(*a)?;
            expect("the second operand", t(*b)?, of)?;
            if pattern.len() != ty.lanes as usize || of.dtype != ty.dtype {
                return Err(format!("{} lanes of {} as {}x{}", pattern.len(), of.dtype, ty.dtype, ty.lanes));
            }
            match pattern.iter().find(|&&p| p >= 2 * of.lanes) {
                Some(p) => Err(format!("lane {p} of two registers of {} lanes", of.lanes)),
                None => Ok(()),
            }
        }
        Instr::Fold { x, op } => {
            let of = t(*x)?;
            if !op.combine().accepts(of.dtype) {
                return Err(format!("{} is not defined on {}", op.name(), of.dtype));
            }
            expect("the result", ty, Type { dtype: of.dtype, lanes: 1 })
        }
    }
}
