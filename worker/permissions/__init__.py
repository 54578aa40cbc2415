"""Files for the servers beside PostgreSQL: who may do what there. docs/security.md says how to use.

`valkey.acl` is an ACL file of Valkey (Redis 7.0 or newer), `rabbitmq.json` are definitions of
RabbitMQ. They hold no password, and nobody can log in before you have given one.
"""
