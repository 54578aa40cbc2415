def test_smoke(cli):
    r = cli("keys", "create", "first", "--user", "ada@example.com", "--role", "member", "--validity", "30", "--time-unit", "day")
    print(r.output, r.exception)
    for c in (["keys","list"],["accounts","list"],["accounts","show","ada@example.com"],["status"],["events","list"],["roles","list"],["notices","list"],["rotations","list"]):
        r = cli(*c); print(c, r.exit_code); print(r.output, r.exception)
    k = cli.new_key("second")
    print(cli("keys","show",k["id"]).output)
    r = cli("keys","rotate",k["id"]); print(r.output, r.exception)
    print(cli("keys","verify", stdin=k["text"]).output)
    print(cli("keys","delete",k["id"], "--dry-run").output)
    print(cli("accounts","disable","ada@example.com", "--dry-run").output)
    print(cli("accounts","disable","ada@example.com", "--yes").output)
    print(cli("accounts","enable","ada@example.com").output)
    assert 0
