CREATE TABLE keyturn.audit_seals (
    number BIGINT NOT NULL,
    cluster BIGINT NOT NULL,
    from_id BIGINT NOT NULL,
    from_transaction BIGINT NOT NULL,
    to_transaction BIGINT NOT NULL,
    entries BIGINT NOT NULL,
    first_id BIGINT NOT NULL,
    last_id BIGINT NOT NULL,
    sealed_at TIMESTAMP WITH TIME ZONE NOT NULL,
    content BYTEA NOT NULL,
    hash BYTEA NOT NULL,
    CONSTRAINT pk_audit_seals PRIMARY KEY (number),
    CONSTRAINT ck_audit_seals_range CHECK (from_transaction < to_transaction AND entries > 0)
);

CREATE INDEX ix_audit_seals_from_id ON keyturn.audit_seals (from_id);

CREATE INDEX ix_audit_transaction_id ON keyturn.audit (transaction_id);
