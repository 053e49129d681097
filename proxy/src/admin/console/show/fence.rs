//! FENCE and FLOWS: the kernel's own gate.

use super::Row;
use crate::observe::FenceSample;
use crate::wire::rows::Value;

pub(super) fn fence(fence: &FenceSample) -> Vec<Row> {
    let mut rows = vec![
        ("mode", Value::from(fence.mode)),
        ("up", if fence.absent.is_none() { "yes" } else { "no" }.into()),
        ("absent", fence.absent.as_ref().map_or(Value::Null, |(_, why)| why.as_str().into())),
        ("pins", fence.pins.as_str().into()),
    ];
    if let Some(counted) = &fence.counted {
        rows.extend([
            ("generation", counted.generation.to_string().as_str().into()),
            ("configuration", counted.digest.as_str().into()),
            ("widened", if counted.widened { "yes" } else { "no" }.into()),
            ("addresses", counted.addresses.to_string().as_str().into()),
        ]);
    }
    rows.into_iter().map(|(key, value)| vec![key.into(), value]).collect()
}

pub(super) fn flows(fence: &FenceSample) -> Vec<Row> {
    let flows = fence.counted.iter().flat_map(|counted| &counted.flows);
    let row = |flow: &crate::observe::FlowSample| {
        let worker = if flow.worker < 0 { Value::Null } else { flow.worker.cast_unsigned().into() };
        let node = if flow.node.is_empty() { Value::Null } else { flow.node.as_str().into() };
        let (region, direction, verdict) = (flow.region.as_str().into(), flow.direction.into(), flow.verdict.into());
        vec![region, node, worker, direction, verdict, flow.flows.into(), flow.packets.into(), flow.bytes.into()]
    };
    flows.map(row).collect()
}
