//! Says which object of kernel programs is carried inside: the one that is committed, unless another one is to be tried.

fn main() {
    println!("cargo::rerun-if-env-changed=DOMICILE_EBPF_OBJECT");
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../ebpf/prebuilt/domicile.o");
    let object = std::env::var("DOMICILE_EBPF_OBJECT").unwrap_or_else(|_| committed.to_owned());
    println!("cargo::rerun-if-changed={object}");
    println!("cargo::rustc-env=DOMICILE_EBPF_OBJECT={object}");
}
