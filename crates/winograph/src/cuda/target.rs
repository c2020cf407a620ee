//! What the compiler is told about a GPU: what the card has and NVRTC compiles for.

use super::driver::Device;
use super::nvrtc::Architecture;
use crate::device::DeviceError;
use crate::image::{CodeForm, GpuCode, ON_A_CHIP};
use winograph_compiler::Target;
use winograph_compiler::optimize::matrix_unit::{CUDA_UNITS, HOPPER_UNITS};
use winograph_compiler::target::Gpu;

/// Numbers of attributes in cuda.h.
mod attribute {
    pub(super) const MAX_THREADS: i32 = 1;
    pub(super) const WARP: i32 = 10;
    pub(super) const PROCESSORS: i32 = 16;
    pub(super) const L2: i32 = 38;
    pub(super) const SHARED: i32 = 97;
}

/// What to compile for a card of a compute capability with a compiler that knows these: machine code of the card, else of
/// an earlier one with the same major number, else PTX. `None` where the card is older than all.
///
/// Machine code of a GPU on a system on a chip runs there alone, and that of other GPUs does not run there.
pub(super) fn architecture(card: u32, architectures: &[u32]) -> Option<Architecture> {
    if architectures.contains(&card) {
        return Some(Architecture::Machine(card));
    }
    let earlier = architectures.iter().copied().filter(|a| *a <= card && !ON_A_CHIP.contains(a)).max()?;
    let same = earlier / 10 == card / 10 && !ON_A_CHIP.contains(&card);
    Some(if same { Architecture::Machine(earlier) } else { Architecture::Virtual(earlier) })
}

/// Where what a compiler of this version makes for an architecture runs. On 9.0 kernels use what no other GPU has, which
/// CUDA 12 can compile.
pub(super) fn code(architecture: Architecture, version: (u32, u32)) -> GpuCode {
    let (capability, form) = match architecture {
        Architecture::Machine(90) if version >= (12, 0) => (90, CodeForm::Exact),
        Architecture::Machine(a) => (a, CodeForm::Machine),
        Architecture::Virtual(a) => (a, CodeForm::Ptx),
    };
    GpuCode { capability, form }
}

/// What of a card kernels may use.
#[derive(Debug, PartialEq)]
struct Support {
    capability: u32,
    units: &'static [&'static str],
    /// Whether asynchronous copies are there.
    copies: bool,
}

/// What a card has, as far as a compiler makes code for it; all of it where no compiler is known.
fn support(card: u32, code: Option<&GpuCode>) -> Support {
    let capability = code.map_or(card, |c| c.capability.min(card));
    // What 9.0 has beyond is neither in later machines nor in PTX for them.
    let exact = code.map_or(card == 90, |c| c.form == CodeForm::Exact);
    let units: &[&str] = match capability {
        90 if exact => &HOPPER_UNITS,
        80.. => &CUDA_UNITS,
        _ => &[],
    };
    Support { capability, units, copies: capability >= 80 }
}

/// A target with what a card has, as far as a compiler makes code for it.
pub(super) fn supported(target: &Target, card: u32, code: Option<&GpuCode>) -> Target {
    let Support { capability, units, copies } = support(card, code);
    let gpu = target.gpu.clone().map(|gpu| Gpu { units, copies, ..gpu });
    Target { name: format!("cuda:sm_{capability}"), gpu, ..target.clone() }
}

/// What the driver says about a GPU, with all that a card of this compute capability has.
pub(super) fn of_card(device: &Device, card: u32) -> Result<Target, DeviceError> {
    let known = Target::by_name("cuda:sm_90").unwrap_or_else(|| Target::cpu(16));
    let l2 = device.attribute(attribute::L2)?;
    let gpu = Gpu {
        lanes: device.attribute(attribute::WARP)?,
        processors: device.attribute(attribute::PROCESSORS)?,
        max_threads: device.attribute(attribute::MAX_THREADS)?,
        shared: device.attribute(attribute::SHARED)?,
        ..known.gpu.clone().unwrap_or(Gpu {
            lanes: 32,
            processors: 132,
            sector: 32,
            max_threads: 1024,
            access: 16,
            registers: 255,
            shared: 48 << 10,
            units: &[],
            copies: false,
        })
    };
    Ok(supported(&Target { l2, l3: l2, gpu: Some(gpu), ..known }, card, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plans use no more than both the card has and the compiler can compile, whichever of them is the older.
    #[test]
    fn units_are_those_that_card_and_compiler_have() {
        const OLD: &[u32] = &[52, 60, 61, 70, 72, 75];
        const V11_0: &[u32] = &[52, 60, 61, 70, 72, 75, 80];
        const V11_4: &[u32] = &[52, 60, 61, 70, 72, 75, 80, 86, 87];
        const V11_8: &[u32] = &[52, 60, 61, 70, 72, 75, 80, 86, 87, 89, 90];
        const V12_8: &[u32] = &[52, 60, 61, 70, 72, 75, 80, 86, 87, 89, 90, 100, 120];
        const V13: &[u32] = &[75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120];
        let (machine, ptx) = (Architecture::Machine, Architecture::Virtual);
        let (hopper, cuda, none): (&[&str], &[&str], &[&str]) = (&HOPPER_UNITS, &CUDA_UNITS, &[]);
        let cases = [
            (90, (12, 0), V11_8, Some(machine(90)), 90, hopper),
            (90, (13, 0), V13, Some(machine(90)), 90, hopper),
            // It knows the card, but not what only that card has.
            (90, (11, 8), V11_8, Some(machine(90)), 90, cuda),
            (90, (11, 4), V11_4, Some(ptx(86)), 86, cuda),
            (90, (11, 0), V11_0, Some(ptx(80)), 80, cuda),
            (90, (10, 2), OLD, Some(ptx(75)), 75, none),
            (80, (12, 8), V12_8, Some(machine(80)), 80, cuda),
            (86, (11, 0), V11_0, Some(machine(80)), 80, cuda),
            (89, (11, 4), V11_4, Some(machine(86)), 86, cuda),
            // On a chip: nothing but its own.
            (87, (11, 8), V11_8, Some(machine(87)), 87, cuda),
            (88, (12, 8), V12_8, Some(ptx(86)), 86, cuda),
            (75, (12, 8), V12_8, Some(machine(75)), 75, none),
            (70, (12, 8), V12_8, Some(machine(70)), 70, none),
            // Later cards have not what 9.0 has beyond.
            (100, (12, 4), V11_8, Some(ptx(90)), 90, cuda),
            (120, (12, 8), V12_8, Some(machine(120)), 120, cuda),
            (121, (13, 0), V13, Some(machine(120)), 120, cuda),
            (130, (13, 0), V13, Some(ptx(120)), 120, cuda),
            // Older than all that the compiler knows: nothing can be compiled, and the card is what it is.
            (70, (13, 0), V13, None, 70, none),
        ];
        for (card, version, known, expected, capability, units) in cases {
            let found = architecture(card, known);
            assert_eq!(found, expected, "{card} {version:?}");
            let code = found.map(|a| code(a, version));
            let support = support(card, code.as_ref());
            assert_eq!(support, Support { capability, units, copies: capability >= 80 }, "{card} {version:?}");
            assert!(code.is_none_or(|c| c.check(card).is_ok()), "{card} {version:?}");
        }
        assert_eq!(support(90, None).units, hopper);
        assert_eq!(support(100, None).units, cuda);
    }

    #[test]
    fn a_target_keeps_what_the_driver_says() {
        let Some(card) = Target::by_name("cuda:sm_90") else { panic!("a target that there is") };
        let code = GpuCode { capability: 86, form: CodeForm::Ptx };
        let target = supported(&card, 90, Some(&code));
        assert_eq!(target.name, "cuda:sm_86");
        let (before, after) = (card.gpu.unwrap(), target.gpu.unwrap());
        assert_eq!((before.shared, before.processors, before.lanes), (after.shared, after.processors, after.lanes));
        assert_eq!((after.units, after.copies), (&CUDA_UNITS[..], true));
    }
}
