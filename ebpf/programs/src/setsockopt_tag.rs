//! The option that tags a socket. It needs no privilege, and it can be set once: a second time is EPERM, as is anything that is no
//! tag. Other options go on to the kernel.

use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::cgroup_sockopt;
use aya_ebpf::programs::SockoptContext;
use domicile_ebpf_abi::{CONTROL, Socket, TAG_LEVEL, TAG_NAME, Tag, Traffic};

use crate::maps::{SOCKETS, known};

/// What the kernel shows to a program of an option's value; a longer one has to be let through by hand.
const SHOWN: i32 = 4096;
const SOCK_STREAM: u32 = 1;

#[cgroup_sockopt(setsockopt)]
pub fn setsockopt_tag(ctx: SockoptContext) -> i32 {
    let option = ctx.sockopt;
    // SAFETY: the kernel's context, which is readable while the program runs.
    let (level, name, length) = unsafe {
        (
            (&raw const (*option).level).read_volatile(),
            (&raw const (*option).optname).read_volatile(),
            (&raw const (*option).optlen).read_volatile(),
        )
    };
    if level != TAG_LEVEL {
        if length > SHOWN {
            // SAFETY: as above; 0 says that the value was not touched.
            unsafe { (&raw mut (*option).optlen).write_volatile(0) };
        }
        return 1;
    }
    if name != TAG_NAME || length != size_of::<Tag>() as i32 {
        return 0;
    }
    // SAFETY: as above; the value is read only after its bounds have been compared.
    unsafe {
        let socket = (&raw const (*option).__bindgen_anon_1.sk).read_volatile();
        let value = (&raw const (*option).__bindgen_anon_2.optval).read_volatile().cast::<Tag>();
        let end = (&raw const (*option).__bindgen_anon_3.optval_end).read_volatile().cast::<Tag>();
        if socket.is_null() || value.add(1) > end || (*socket).type_ != SOCK_STREAM {
            return 0;
        }
        let tag = *value;
        if tag.region == CONTROL || tag.reserved != 0 || !known(socket.cast()).is_null() {
            return 0;
        }
        let mut made = Socket { tag, verified: 0, node: 0, dropped: 0, sent: Traffic::NONE, received: Traffic::NONE };
        let map = (&raw const SOCKETS).cast_mut().cast();
        let kept = bpf_sk_storage_get(map, socket.cast(), (&raw mut made).cast(), BPF_SK_STORAGE_GET_F_CREATE as u64);
        if kept.is_null() {
            return 0;
        }
        // Done: the kernel, which does not know this option, is not asked.
        (&raw mut (*option).optlen).write_volatile(-1);
    }
    1
}
