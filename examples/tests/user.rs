//! What the example `user` prints.

use std::process::Command;

#[test]
fn every_post_is_printed_and_the_total_is_right() {
    let run = Command::new(env!("CARGO_BIN_EXE_user")).output().unwrap();
    assert!(run.status.success());
    let text = String::from_utf8(run.stdout).unwrap();
    for worker in 0..3 {
        let lines: Vec<_> =
            text.lines().filter_map(|l| l.strip_prefix(&format!("worker {worker}: "))).collect();
        assert_eq!(lines[..4], ["25 %", "50 %", "75 %", "100 %"], "in the order of posting");
        assert!(lines[4].starts_with("the sum is "));
    }
    let total: u64 = (0..3_000_000).sum();
    assert_eq!(text.lines().last(), Some(format!("total: {total}").as_str()));
    assert!(run.stderr.is_empty());
}
