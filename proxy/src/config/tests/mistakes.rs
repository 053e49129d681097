//! Every kind of mistake and warning in a configuration, with its exact text.

use expect_test::expect;

use super::{MINIMAL, check, read};

#[test]
fn text_that_is_not_toml() {
    check(
        "listen = [\nworkers = = 2\n[pools\nsize = 1",
        expect![[r#"
            d.toml:2: this is not TOML: string values must be quoted, expected literal string
            d.toml:3: this is not TOML: missing comma between array elements, expected `,`
            d.toml:4: this is not TOML: missing comma between array elements, expected `,`
        "#]],
    );
    check(
        "workers = 1\nworkers = 2\n",
        expect![[r#"
            d.toml:2: this is not TOML: duplicate key
        "#]],
    );
}

#[test]
fn keys_that_do_not_exist() {
    check(
        r#"pool_mod = "session"
colour = "red"
"a\nb" = 1
[auth]
metod = "trust"
[pool]
size = 1
[pools]
site = 1
[residency]
binds = []
[[residency.bind]]
regoins = ["eu-west"]
[regions.eu-west]
juristiction = "EU"
[[nodes]]
hostname = "x"
[http]
port = 1
"#,
        expect![[r#"
            d.toml:1: unknown key "pool_mod": did you mean "pool_mode"?
            d.toml:2: unknown key "colour": the keys here are admin, audit, auth, core_dumps, engine, fence, http, kernel, limits, listen, log, nodes, parameters, pin_notice, pool_mode, pools, regions, residency, session_state, tls, unix_socket_mode, user, workers
            d.toml:3: unknown key "a\nb": the keys here are admin, audit, auth, core_dumps, engine, fence, http, kernel, limits, listen, log, nodes, parameters, pin_notice, pool_mode, pools, regions, residency, session_state, tls, unix_socket_mode, user, workers
            d.toml:4: auth.users is missing: add users = "users.txt", or [auth.query] (only method "trust" needs no users)
            d.toml:5: unknown key "auth.metod": did you mean "method"?
            d.toml:6: unknown key "pool": did you mean "pools"?
            d.toml:9: unknown key "pools.site": did you mean "size"?
            d.toml:11: unknown key "residency.binds": did you mean "bind"?
            d.toml:12: residency.bind[0].regions is missing: add regions = ["eu-west"]
            d.toml:13: unknown key "residency.bind[0].regoins": did you mean "regions"?
            d.toml:15: unknown key "regions.eu-west.juristiction": did you mean "jurisdiction"?
            d.toml:16: nodes[0].name is missing: add name = "pg-eu-west"
            d.toml:16: nodes[0].region is missing: add region = "eu-west"
            d.toml:16: nodes[0].address is missing: add address = "127.0.0.1:5432"
            d.toml:17: unknown key "nodes[0].hostname": the keys here are address, database, name, networks, password, region, require_auth, role, tls, user
            d.toml:19: unknown key "http.port": the keys here are listen
        "#]],
    );
}

#[test]
fn values_of_another_type() {
    check(
        r#"listen = "127.0.0.1:6432"
workers = "two"
pool_mode = 1
auth = "trust"
residency.enforce = "yes"
residency.parameters = [1]
regions = ["eu-west"]
nodes = { name = "x" }
pools.size = 1.5
pools.wait_timeout = true
limits.login_timeout = 1979-05-27
audit.file = []
log.level = {}
"#,
        expect![[r#"
            d.toml:1: listen must be a list of addresses such as "127.0.0.1:6432", not "127.0.0.1:6432"
            d.toml:2: workers must be a whole number from 0 to 64, not "two"
            d.toml:3: pool_mode must be one of "transaction", "session", not 1
            d.toml:4: auth must be a table, not "trust"
            d.toml:4: auth.users is missing: add users = "users.txt", or [auth.query] (only method "trust" needs no users)
            d.toml:5: residency.enforce must be true or false, not "yes"
            d.toml:6: residency.parameters[0] must be a setting's name with a dot in it, such as "domicile.region", not 1
            d.toml:7: regions must be a table, not a list
            d.toml:8: nodes must be a list of tables, each under [[nodes]], not a table
            d.toml:9: pools.size must be a whole number from 1 to 1000000, not 1.5
            d.toml:10: pools.wait_timeout must be a duration such as "250ms", "120s", "5min" or "1h" (a bare number means seconds), not true
            d.toml:11: limits.login_timeout must be a duration such as "250ms", "120s", "5min" or "1h" (a bare number means seconds), not a date
            d.toml:12: audit.file must be a text between quotes that is not empty, not a list
            d.toml:13: log.level must be one of "error", "warn", "info", "debug", "trace", not a table
        "#]],
    );
    check(
        "nodes = [1]\nregions.eu-west = 1\nauth.method = \"trust\"\nresidency.bind = [[]]",
        expect![[r#"
            d.toml:1: nodes[0] must be a table, not 1
            d.toml:2: regions.eu-west must be a table, not 1
            d.toml:4: residency.bind[0] must be a table, not a list
        "#]],
    );
}

#[test]
fn words_that_are_nearly_right() {
    check(
        r#"pool_mode = "transactoin"
auth.method = "scram"
residency.unbound = "cleint"
residency.no_region = "defualt"
engine.buffers = "Plain"
log.format = "xml"
log.level = "warning"
nodes = [{ name = "a", region = "eu-west", address = "127.0.0.1:1", role = "secondary" }]
regions.eu-west = {}
residency.bind = [{ regions = ["eu-west"], target_session_attrs = "read_only" }]
"#,
        expect![[r#"
            d.toml:1: pool_mode must be one of "transaction", "session", not "transactoin": did you mean "transaction"?
            d.toml:2: auth.method must be one of "trust", "password", "md5", "scram-sha-256", "jwt", "oauth", not "scram": did you mean "scram-sha-256"?
            d.toml:3: residency.unbound must be "block", "client" or a declared region, not "cleint": did you mean "client"?
            d.toml:4: residency.no_region must be one of "block", "default", not "defualt": did you mean "default"?
            d.toml:5: engine.buffers must be one of "auto", "incremental", "plain", not "Plain": did you mean "plain"?
            d.toml:6: log.format must be one of "text", "json", not "xml"
            d.toml:7: log.level must be one of "error", "warn", "info", "debug", "trace", not "warning": did you mean "warn"?
            d.toml:8: nodes[0].role must be one of "primary", "replica", not "secondary"
            d.toml:10: residency.bind[0].target_session_attrs must be one of "any", "read-write", "read-only", "primary", "standby", "prefer-standby", not "read_only": did you mean "read-only"?
        "#]],
    );
}

#[test]
fn numbers_and_durations_out_of_bounds() {
    check(
        r#"workers = -1
auth.method = "trust"
pools.size = 0
pools.max_per_region = 99999999999999999999
pools.wait_timeout = "0s"
pools.idle_timeout = "366d"
pools.lifetime = "5m"
pools.connect_timeout = -5
limits.max_clients = 1000001
limits.login_timeout = ""
engine.receive_buffers = 1000
"#,
        expect![[r#"
            d.toml:1: workers must be a whole number from 0 to 64, not -1
            d.toml:3: pools.size must be a whole number from 1 to 1000000, not 0
            d.toml:4: pools.max_per_region must be a whole number from 1 to 1000000, not 99999999999999999999
            d.toml:5: pools.wait_timeout must be from "1ms" to "365d", not "0s"
            d.toml:6: pools.idle_timeout must be from "1ms" to "365d", not "366d"
            d.toml:7: pools.lifetime must be a duration such as "250ms", "120s", "5min" or "1h" (a bare number means seconds), not "5m"
            d.toml:8: pools.connect_timeout must be a duration such as "250ms", "120s", "5min" or "1h" (a bare number means seconds), not -5
            d.toml:9: limits.max_clients must be a whole number from 1 to 1000000, not 1000001
            d.toml:10: limits.login_timeout must be a duration such as "250ms", "120s", "5min" or "1h" (a bare number means seconds), not ""
            d.toml:11: engine.receive_buffers must be a power of two, as the kernel's buffer rings are, not 1000
        "#]],
    );
    check(
        "auth.method = \"trust\"\nengine.receive_buffers = 65536\nworkers = 65",
        expect![[r#"
            d.toml:2: engine.receive_buffers must be a whole number from 16 to 32768, not 65536
            d.toml:3: workers must be a whole number from 0 to 64, not 65
        "#]],
    );
}

#[test]
fn addresses() {
    check(
        r#"listen = ["localhost:6432", "127.0.0.1", "127.0.0.1:0", "[::]:6432", "[::]:6432", "run/domicile", "/run/x", "/run/x:6432", "/run:0"]
unix_socket_mode = "rw"
auth.method = "trust"
http.listen = ":9432"
regions.eu-west = {}
nodes = [
  { name = "a", region = "eu-west", address = "db1" },
  { name = "b", region = "eu-west", address = "::1:5432" },
  { name = "c", region = "eu-west", address = "run/postgresql" },
]
"#,
        expect![[r#"
            d.toml:1: listen[0] must be an IP address and a port, such as "127.0.0.1:6432", "0.0.0.0:6432" or "[::]:6432", or the directory of a Unix socket, such as "/run/domicile", not "localhost:6432"
            d.toml:1: listen[1] must be an IP address and a port, such as "127.0.0.1:6432", "0.0.0.0:6432" or "[::]:6432", or the directory of a Unix socket, such as "/run/domicile", not "127.0.0.1"
            d.toml:1: listen[2] must be an IP address and a port, such as "127.0.0.1:6432", "0.0.0.0:6432" or "[::]:6432", or the directory of a Unix socket, such as "/run/domicile", not "127.0.0.1:0"
            d.toml:1: listen[4]: [::]:6432 is already in the list: remove one
            d.toml:1: listen[5] must be an IP address and a port, such as "127.0.0.1:6432", "0.0.0.0:6432" or "[::]:6432", or the directory of a Unix socket, such as "/run/domicile", not "run/domicile"
            d.toml:1: listen[7]: /run/x/.s.PGSQL.6432 is already in the list: remove one
            d.toml:1: listen[8] must be an absolute directory whose socket has a path of at most 107 bytes, such as "/run/domicile" or "/run/domicile:6432", not "/run:0"
            d.toml:2: unix_socket_mode must be the mode of a file in octal digits, such as "0777" or "0770", not "rw"
            d.toml:4: http.listen must be an IP address and a port, such as "127.0.0.1:6432", "0.0.0.0:6432" or "[::]:6432", not ":9432"
            d.toml:7: nodes[0].address must be "host:port" or the absolute path of a unix socket directory, not "db1"
            d.toml:8: nodes[1].address must be "host:port" or the absolute path of a unix socket directory, not "::1:5432"
            d.toml:9: nodes[2].address must be "host:port" or the absolute path of a unix socket directory, not "run/postgresql"
        "#]],
    );
    check(
        "listen = []\nauth.method = \"trust\"",
        expect![[r#"
            d.toml:1: listen is empty: give it an address such as "127.0.0.1:6432", or remove it for that default
        "#]],
    );
}

#[test]
fn regions_that_are_used_are_declared() {
    check(
        r#"auth.method = "trust"
[residency]
unbound = "eu-wst"
default_region = "eu-central"
[[residency.bind]]
user = "alice"
regions = ["eu-west", "us-esat", "bad name"]
[regions.eu-west]
[regions.us-east]
[[nodes]]
name = "a"
region = "EU-WEST"
address = "127.0.0.1:5433"
"#,
        expect![[r#"
            d.toml:3: residency.unbound must be "block", "client" or a declared region, not "eu-wst": did you mean "eu-west"?
            d.toml:4: residency.default_region: region "eu-central" is not declared: declare it with [regions.eu-central]
            d.toml:7: residency.bind[0].regions[1]: region "us-esat" is not declared: did you mean "us-east"?
            d.toml:7: residency.bind[0].regions[2]: region "bad name" is not declared: declare it with [regions.<name>]
            d.toml:12: nodes[0].region: region "EU-WEST" is not declared: did you mean "eu-west"?
        "#]],
    );
}

#[test]
fn names_of_regions_and_nodes() {
    check(
        r#"auth.method = "trust"
[regions."eu west"]
[regions.client]
[regions.eu]
[[nodes]]
name = ""
region = "eu"
address = "127.0.0.1:5433"
[[nodes]]
name = "a"
region = "eu"
address = "127.0.0.1:5433"
[[nodes]]
name = "a"
region = "eu"
address = "127.0.0.1:5434"
[[nodes]]
"#,
        expect![[r#"
            d.toml:2: the name of a region must be 1 to 63 letters, digits, "-", "_" or ".", not "eu west"
            d.toml:3: a region cannot be named "client": residency.unbound gives that word another meaning
            d.toml:6: nodes[0].name must be a name of 1 to 63 letters, digits, "-", "_" or ".", not ""
            d.toml:13: there are two nodes named "a": rename one
            d.toml:17: nodes[3].name is missing: add name = "pg-eu-west"
            d.toml:17: nodes[3].region is missing: add region = "eu-west"
            d.toml:17: nodes[3].address is missing: add address = "127.0.0.1:5432"
        "#]],
    );
    let regions: String = (0..=crate::limits::REGIONS_MAX).map(|number| format!("[regions.r{number}]\n")).collect();
    check(
        &format!("auth.method = \"trust\"\n{regions}"),
        expect![[r#"
            d.toml:1026: there are more than 1024 regions: remove some
        "#]],
    );
}

#[test]
fn residency() {
    check(
        r#"auth.method = "trust"
[residency]
parameters = ["region", "Acme.Region", "acme.region", "domicile.node"]
no_region = "default"
enforce = false
block_message = "blocked: {raeson}"
block_sqlstate = "00000"
[[residency.bind]]
user = "alice"
[[residency.bind]]
from = "10.0.0.0/33"
database = ""
regions = []
"#,
        expect![[r#"
            d.toml:3: residency.parameters[0] must be a setting's name with a dot in it, such as "domicile.region", not "region"
            d.toml:3: residency.parameters[2]: "acme.region" is already in the list: remove one
            d.toml:3: residency.parameters[3] cannot be "domicile.node": SHOW answers it with the session's node
            d.toml:4: residency.no_region = "default" leads nowhere: set residency.default_region too
            d.toml:5: residency.enforce = false sends what would be blocked to the default region: set residency.default_region too
            d.toml:6: residency.block_message has an unknown placeholder: the only one is {reason}
            d.toml:7: residency.block_sqlstate must be the five characters of an SQLSTATE that is an error, such as "42000", not "00000"
            d.toml:8: residency.bind[0].regions is missing: add regions = ["eu-west"]
            d.toml:11: residency.bind[1].from must be an address or a network, such as "10.0.0.0/8", not "10.0.0.0/33"
            d.toml:12: residency.bind[1].database must be a text between quotes that is not empty, not ""
            d.toml:13: residency.bind[1].regions is empty: a rule grants at least one region, the first being where a session starts
        "#]],
    );
    check(
        "auth.method = \"trust\"\nresidency.parameters = []\nresidency.block_sqlstate = \"42\"\nresidency.block_message = \"\\u0000\"",
        expect![[r#"
            d.toml:2: residency.parameters is empty: no session could say its region; name one, such as "domicile.region"
            d.toml:3: residency.block_sqlstate must be the five characters of an SQLSTATE that is an error, such as "42000", not "42"
            d.toml:4: residency.block_message must be a text between quotes that is not empty, not "\0"
        "#]],
    );
}

#[test]
fn parameters() {
    check(
        r#"auth.method = "trust"
[parameters]
"" = "x"
Session_Authorization = "alice"
TimeZone = 1
"#,
        expect![[r#"
            d.toml:3: a parameter must have a name
            d.toml:4: parameters.Session_Authorization is always the user who logs in: remove it
            d.toml:5: parameters.TimeZone must be a text between quotes, as PostgreSQL would report it, not 1
        "#]],
    );
}

#[test]
fn warnings() {
    check(
        "auth.method = \"trust\"",
        expect![[r#"
            warning: d.toml:1: there are no [[nodes]]: every statement that needs a server will be denied
            warning: d.toml:1: no login is admitted: add a [[residency.bind]], or set residency.unbound
        "#]],
    );
    check(
        r#"auth.method = "trust"
[residency]
unbound = "client"
no_region = "default"
default_region = "eu-west"
[[residency.bind]]
regions = ["us-east"]
[[residency.bind]]
user = "alice"
regions = ["eu-west"]
[regions.eu-west]
[regions.us-east]
[regions.ap-south]
[[nodes]]
name = "a"
region = "us-east"
address = "127.0.0.1:5433"
[[nodes]]
name = "b"
region = "ap-south"
address = "127.0.0.1:5433"
"#,
        expect![[r#"
            warning: d.toml:3: residency.unbound = "client" lets every login that no bind rule matches choose any region
            warning: d.toml:5: the default region "eu-west" has no node: whatever leads there is denied
            warning: d.toml:8: residency.bind[1] is never reached: residency.bind[0] before it matches every login
            warning: d.toml:18: node "a" of region "us-east" and node "b" of region "ap-south" are the same server, 127.0.0.1:5433: nothing keeps their rows apart
        "#]],
    );
    check(
        r#"auth.method = "trust"
[[residency.bind]]
user = "a"
regions = ["eu", "us", "none"]
[[residency.bind]]
user = "b"
regions = ["eu", "us"]
target_session_attrs = "standby"
[[residency.bind]]
user = "c"
regions = ["eu", "us"]
target_session_attrs = "prefer-standby"
[regions.eu]
[regions.us]
[regions.none]
[[nodes]]
name = "a"
region = "eu"
address = "127.0.0.1:5433"
role = "replica"
[[nodes]]
name = "b"
region = "us"
address = "127.0.0.1:5434"
"#,
        expect![[r#"
            warning: d.toml:2: residency.bind[0]: target_session_attrs is "read-write", and no node of region "eu" has the role "primary"
            warning: d.toml:5: residency.bind[1]: target_session_attrs is "standby", and no node of region "us" has the role "replica"
        "#]],
    );
}

#[test]
fn what_tokens_are_for() {
    let more = "auth.method = \"jwt\"\nresidency.unbound = \"client\"\nresidency.bind = [{ regions = \"claim\" }, \
                { claims = { tenant = \"acme\", level = 5 }, regions = [\"eu\"] }]\n[regions.eu]\n\
                [[nodes]]\nname = \"a\"\nregion = \"eu\"\naddress = \"h:1\"\n";
    check(
        more,
        expect![[r#"
            d.toml:1: auth.jwt is missing: say by [auth.jwt] whose tokens are good
            d.toml:3: residency.bind[1].claims.level must be a text between quotes that is not empty, not 5
        "#]],
    );
    check(
        &more.replace("\"jwt\"", "\"trust\""),
        expect![[r#"
            d.toml:3: residency.bind[0].regions = "claim" needs auth.jwt.regions_claim
            d.toml:3: residency.bind[1].claims.tenant is for tokens: say by [auth.jwt] whose are good
            d.toml:3: residency.bind[1].claims.level is for tokens: say by [auth.jwt] whose are good
            d.toml:3: residency.bind[1].claims.level must be a text between quotes that is not empty, not 5
        "#]],
    );
    check(
        &format!("{more}[auth.jwt]\nkeys = \"missing.pem\"\nleeway = \"1h\"\nregion_claim = \"x\"\n"),
        expect![[r#"
            d.toml:3: residency.bind[1].claims.level must be a text between quotes that is not empty, not 5
            d.toml:9: auth.jwt.audience is missing: add audience = "domicile"
            d.toml:10: auth.jwt.keys: missing.pem cannot be read: No such file or directory (os error 2)
            d.toml:11: auth.jwt.leeway must be from "0s" to "600s", not "1h"
            d.toml:12: unknown key "auth.jwt.region_claim": did you mean "regions_claim"?
        "#]],
    );
}

#[test]
fn what_servers_may_ask_for() {
    let mistakes = |require_auth: &str| read(&format!("{MINIMAL}require_auth = {require_auth}")).unwrap_err().to_string();
    let found: Vec<_> =
        ["\"md5\"", "[\"scram\"]", "[\"md5\", \"!none\"]", "[]", "[\"!none\", \"!password\", \"!md5\", \"!scram-sha-256\"]"]
            .map(mistakes)
            .into();
    expect![[r#"
        d.toml:9: nodes[0].require_auth must be a list of methods such as "scram-sha-256", not "md5"
        d.toml:9: nodes[0].require_auth[0] must be one of "none", "!none", "password", "!password", "md5", "!md5", "scram-sha-256", "!scram-sha-256", not "scram": did you mean "scram-sha-256"?
        d.toml:9: nodes[0].require_auth mixes methods with and without "!": say what is allowed, or what is not
        d.toml:9: nodes[0].require_auth allows no method, so no server could be logged in to
        d.toml:9: nodes[0].require_auth allows no method, so no server could be logged in to"#]].assert_eq(&found.join("\n"));
}

#[test]
fn what_the_kernel_is_asked_for() {
    check(
        &format!(
            r#"
            fence = "maybe"
            user = ""
            {MINIMAL}
            networks = ["10.0.0.0/8", "ten"]
            [kernel]
            pins = "/domicile"
            cgroup = "../other"
            control = ["localhost:53"]
            steering = "round-robin"
            "#
        ),
        expect![[r#"
            d.toml:2: fence must be one of "required", "preferred", "off", not "maybe"
            d.toml:3: user must be a text between quotes that is not empty, not ""
            d.toml:13: nodes[0].networks[1] must be an address or a network, such as "10.0.0.0/8", not "ten"
            d.toml:13: nodes[0].networks does not contain the node's own address 127.0.0.1
            d.toml:15: kernel.pins must be the absolute path of a directory, such as "/sys/fs/bpf/domicile", not "/domicile"
            d.toml:16: kernel.cgroup must be "auto", "own" or a path below the root of the cgroup v2 hierarchy, such as "domicile", not "../other"
            d.toml:17: kernel.control[0] must be an IP address and a port, such as "127.0.0.53:53", not "localhost:53"
            d.toml:18: kernel.steering must be one of "load", "cpu", "hash", not "round-robin"
        "#]],
    );
}

#[test]
fn a_unix_socket_has_a_port() {
    check(
        "auth.method = \"trust\"\nlisten = [\"/run/domicile\"]\nregions.eu = {}",
        expect![[r#"
            d.toml:2: listen[0] needs a port, since there is no other address: write "/run/domicile:6432"
        "#]],
    );
}

#[test]
fn guards_are_denied_or_allowed() {
    let mistakes = super::read(&format!("{}[residency.guards]\ndblinc = \"deny\"\nload = \"no\"\n", super::MINIMAL))
        .unwrap_err()
        .to_string();
    assert!(mistakes.contains("unknown key \"residency.guards.dblinc\": did you mean \"dblink\"?"), "{mistakes}");
    assert!(mistakes.contains("residency.guards.load must be one of \"deny\", \"allow\", not \"no\""), "{mistakes}");
}
