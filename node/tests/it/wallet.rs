//! Credits move between accounts through a running node; its API lets only the folder's owner write.

use crate::world::{json, tiltyard, until, world};

#[test]
fn credits_move_once_and_the_api_asks_for_the_token() {
    let mut world = world(1, 2);
    for member in &mut world.members {
        member.start();
    }
    until(&world, "a block everywhere", |world| world.members.iter().all(|member| member.height() >= 1));
    let (payer, payee) = (&world.members[1], &world.members[2]);
    let to = payee.public["account"].as_str().expect("an account");
    let moved = json(&["wallet", "transfer", to, "12.5", "--dir", payer.dir()]);
    let height = moved["height"].as_u64().expect("a height");
    until(&world, "the payee's node has the block", |world| world.members[2].height() >= height);
    let balance = json(&["wallet", "show", "--dir", payee.dir()]);
    assert_eq!(balance["balance"], 1_012_500_000);

    let refused = tiltyard(&["wallet", "transfer", to, "5000", "--dir", payer.dir(), "--json"]);
    assert_eq!(refused.status.code(), Some(1), "more than there is");

    let url = format!("{}/v1/transactions", payer.url);
    let config = ureq::Agent::config_builder().http_status_as_error(false).build();
    let agent = config.new_agent();
    let without = agent.post(&url).send_json(serde_json::json!({ "bytes": "00" })).expect("an answer");
    assert_eq!(without.status(), 403);
    let token = std::fs::read_to_string(payer.dir.join("api.token")).expect("a token");
    let garbage = agent
        .post(&url)
        .header("authorization", &format!("Bearer {token}"))
        .send_json(serde_json::json!({ "bytes": "00" }))
        .expect("an answer");
    assert_eq!(garbage.status(), 400);
    let page = agent
        .get(format!("{}/v1/status", payer.url))
        .header("origin", "https://evil.example")
        .call()
        .expect("an answer");
    assert_eq!(page.status(), 403);
}

#[test]
fn exported_key_opens_in_another_folder_with_its_password() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("password"), "correct horse\n").expect("written");
    std::fs::write(path("wrong"), "wrong horse\n").expect("written");
    let made = json(&["init", "--dir", &path("a"), "--password-file", &path("password")]);
    json(&["wallet", "export", "--dir", &path("a"), "--out", &path("backup")]);
    let wrong = tiltyard(&[
        "wallet",
        "import",
        &path("backup"),
        "--dir",
        &path("b"),
        "--password-file",
        &path("wrong"),
    ]);
    assert_eq!(wrong.status.code(), Some(3));
    let taken = json(&[
        "wallet",
        "import",
        &path("backup"),
        "--dir",
        &path("b"),
        "--password-file",
        &path("password"),
    ]);
    assert_eq!(taken["account"], made["account"]);
}
