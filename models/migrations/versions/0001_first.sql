CREATE TABLE keyturn.audit (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    transaction_id BIGINT DEFAULT (pg_current_xact_id()::text)::bigint NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    account_id UUID,
    key_id UUID,
    version INTEGER,
    before TEXT,
    after TEXT,
    why TEXT,
    CONSTRAINT pk_audit PRIMARY KEY (id)
);

CREATE INDEX ix_audit_account_id ON keyturn.audit (account_id) WHERE key_id IS NULL;

CREATE UNIQUE INDEX uq_audit_key_version ON keyturn.audit (key_id, version) WHERE key_id IS NOT NULL;

CREATE TABLE keyturn.inbox (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    source TEXT NOT NULL,
    provider TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    received_at TIMESTAMP WITH TIME ZONE NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE,
    urgent BOOLEAN DEFAULT 'false' NOT NULL,
    action TEXT,
    certainty TEXT,
    raw_type TEXT,
    event_id TEXT,
    occurred_at TIMESTAMP WITH TIME ZONE,
    sequence BIGINT,
    subject JSONB,
    subject_value TEXT[],
    why TEXT,
    actor TEXT,
    conflict BOOLEAN DEFAULT 'false' NOT NULL,
    account_id UUID,
    attempts INTEGER DEFAULT '0' NOT NULL,
    next_attempt_at TIMESTAMP WITH TIME ZONE NOT NULL,
    fence INTEGER DEFAULT '0' NOT NULL,
    headers JSONB,
    body BYTEA,
    CONSTRAINT pk_inbox PRIMARY KEY (id),
    CONSTRAINT ck_inbox_state CHECK (state IN ('received', 'waiting_for_account', 'done', 'stale', 'ignored', 'parked', 'rejected'))
);

CREATE INDEX ix_inbox_due ON keyturn.inbox (urgent, source, id) WHERE state = 'received';

CREATE INDEX ix_inbox_state ON keyturn.inbox (state, id);

CREATE INDEX ix_inbox_waiting ON keyturn.inbox USING gin (subject_value) WHERE state = 'waiting_for_account';

CREATE TABLE keyturn.inbox_keys (
    source TEXT NOT NULL,
    dedup_key TEXT NOT NULL,
    content_hash BYTEA NOT NULL,
    CONSTRAINT pk_inbox_keys PRIMARY KEY (source, dedup_key)
);

CREATE TABLE keyturn.key_uses (
    key_id UUID NOT NULL,
    first_used_at TIMESTAMP WITH TIME ZONE,
    last_used_at TIMESTAMP WITH TIME ZONE,
    uses BIGINT DEFAULT '0' NOT NULL,
    last_ip INET,
    CONSTRAINT pk_key_uses PRIMARY KEY (key_id)
)
 WITH (fillfactor = 50);

CREATE TABLE keyturn.notices (
    id UUID NOT NULL,
    key_id UUID NOT NULL,
    account_id UUID NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    threshold_seconds BIGINT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    planned_at TIMESTAMP WITH TIME ZONE NOT NULL,
    outbox_id UUID,
    CONSTRAINT pk_notices PRIMARY KEY (id),
    CONSTRAINT uq_notices_key_id_expires_at_threshold_seconds UNIQUE (key_id, expires_at, threshold_seconds),
    CONSTRAINT ck_notices_state CHECK (state IN ('planned', 'sent', 'superseded', 'skipped', 'failed'))
);

CREATE INDEX ix_notices_outbox_id ON keyturn.notices (outbox_id);

CREATE INDEX ix_notices_unposted ON keyturn.notices (account_id) WHERE state = 'planned' AND outbox_id IS NULL;

CREATE TABLE keyturn.outbox (
    id UUID NOT NULL,
    channel TEXT NOT NULL,
    kind TEXT NOT NULL,
    priority SMALLINT DEFAULT '5' NOT NULL,
    account_id UUID,
    payload JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    due_at TIMESTAMP WITH TIME ZONE NOT NULL,
    attempts INTEGER DEFAULT '0' NOT NULL,
    fence INTEGER DEFAULT '0' NOT NULL,
    state TEXT DEFAULT 'waiting' NOT NULL,
    settled_at TIMESTAMP WITH TIME ZONE,
    error TEXT,
    CONSTRAINT pk_outbox PRIMARY KEY (id),
    CONSTRAINT ck_outbox_state CHECK (state IN ('waiting', 'sent', 'failed', 'skipped'))
);

CREATE INDEX ix_outbox_account_id ON keyturn.outbox (account_id);

CREATE INDEX ix_outbox_due ON keyturn.outbox (channel, priority, due_at) WHERE state = 'waiting';

CREATE TABLE keyturn.roles (
    name TEXT NOT NULL,
    permissions TEXT[] NOT NULL,
    grantable BOOLEAN NOT NULL,
    CONSTRAINT pk_roles PRIMARY KEY (name)
);

CREATE TABLE keyturn.schedule_runs (
    job TEXT NOT NULL,
    fence INTEGER DEFAULT '0' NOT NULL,
    lease_until TIMESTAMP WITH TIME ZONE,
    started_at TIMESTAMP WITH TIME ZONE,
    finished_at TIMESTAMP WITH TIME ZONE,
    rung_at TIMESTAMP WITH TIME ZONE,
    done BIGINT DEFAULT '0' NOT NULL,
    error TEXT,
    CONSTRAINT pk_schedule_runs PRIMARY KEY (job)
);

CREATE TABLE keyturn.accounts (
    id UUID NOT NULL,
    email TEXT NOT NULL,
    name TEXT DEFAULT '' NOT NULL,
    role TEXT NOT NULL,
    held BOOLEAN DEFAULT 'false' NOT NULL,
    unsettled BOOLEAN DEFAULT 'false' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_accounts PRIMARY KEY (id),
    CONSTRAINT uq_accounts_email UNIQUE (email),
    CONSTRAINT fk_accounts_role_roles FOREIGN KEY(role) REFERENCES keyturn.roles (name)
)
 WITH (fillfactor = 80);

CREATE INDEX ix_accounts_unsettled ON keyturn.accounts (id) WHERE unsettled;

CREATE TABLE keyturn.account_identities (
    id UUID NOT NULL,
    account_id UUID NOT NULL,
    format TEXT NOT NULL,
    issuer TEXT NOT NULL,
    value TEXT NOT NULL,
    linked_at TIMESTAMP WITH TIME ZONE NOT NULL,
    unlinked_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_account_identities PRIMARY KEY (id),
    CONSTRAINT fk_account_identities_account_id_accounts FOREIGN KEY(account_id) REFERENCES keyturn.accounts (id)
);

CREATE INDEX ix_account_identities_account_id ON keyturn.account_identities (account_id);

CREATE UNIQUE INDEX uq_account_identities_linked ON keyturn.account_identities (format, issuer, value) WHERE unlinked_at IS NULL;

CREATE TABLE keyturn.api_keys (
    id UUID NOT NULL,
    account_id UUID NOT NULL,
    name TEXT NOT NULL,
    created_by TEXT NOT NULL,
    role TEXT NOT NULL,
    digest BYTEA NOT NULL,
    scheme TEXT NOT NULL,
    pepper SMALLINT,
    hint TEXT NOT NULL,
    allowed_ips TEXT[],
    family_id UUID NOT NULL,
    held BOOLEAN DEFAULT 'false' NOT NULL,
    status TEXT DEFAULT 'active' NOT NULL,
    version INTEGER DEFAULT '1' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    deleted_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_api_keys PRIMARY KEY (id),
    CONSTRAINT ck_api_keys_status CHECK (status IN ('active', 'disabled', 'expired', 'retired', 'deleted')),
    CONSTRAINT ck_api_keys_deleted CHECK (status <> 'deleted' OR deleted_at IS NOT NULL),
    CONSTRAINT ck_api_keys_life CHECK (expires_at > created_at),
    CONSTRAINT fk_api_keys_account_id_accounts FOREIGN KEY(account_id) REFERENCES keyturn.accounts (id),
    CONSTRAINT fk_api_keys_role_roles FOREIGN KEY(role) REFERENCES keyturn.roles (name),
    CONSTRAINT uq_api_keys_digest UNIQUE (digest)
);

CREATE INDEX ix_api_keys_account_id ON keyturn.api_keys (account_id, status);

CREATE INDEX ix_api_keys_ended ON keyturn.api_keys (expires_at) WHERE status = 'expired';

CREATE INDEX ix_api_keys_expires_at ON keyturn.api_keys (expires_at) WHERE status NOT IN ('expired', 'deleted');

CREATE INDEX ix_api_keys_family_id ON keyturn.api_keys (family_id);

CREATE TABLE keyturn.holds (
    id UUID NOT NULL,
    account_id UUID,
    key_id UUID,
    source TEXT NOT NULL,
    kind TEXT NOT NULL,
    placed_at TIMESTAMP WITH TIME ZONE,
    lifted_at TIMESTAMP WITH TIME ZONE,
    reason TEXT,
    mark_at TIMESTAMP WITH TIME ZONE,
    mark_sequence BIGINT,
    mark_event BIGINT,
    confirm BOOLEAN DEFAULT 'false' NOT NULL,
    CONSTRAINT pk_holds PRIMARY KEY (id),
    CONSTRAINT ck_holds_one_target CHECK (num_nonnulls(account_id, key_id) = 1),
    CONSTRAINT fk_holds_account_id_accounts FOREIGN KEY(account_id) REFERENCES keyturn.accounts (id),
    CONSTRAINT fk_holds_key_id_api_keys FOREIGN KEY(key_id) REFERENCES keyturn.api_keys (id)
);

CREATE INDEX ix_holds_deletion ON keyturn.holds (placed_at) WHERE kind = 'deleted' AND lifted_at IS NULL;

CREATE INDEX ix_holds_source_placed_at ON keyturn.holds (source, placed_at);

CREATE UNIQUE INDEX uq_holds_account ON keyturn.holds (account_id, source, kind) WHERE account_id IS NOT NULL;

CREATE UNIQUE INDEX uq_holds_key ON keyturn.holds (key_id, source, kind) WHERE key_id IS NOT NULL;

CREATE TABLE keyturn.rotations (
    id UUID NOT NULL,
    account_id UUID NOT NULL,
    family_id UUID NOT NULL,
    old_key_id UUID NOT NULL,
    new_key_id UUID NOT NULL,
    state TEXT NOT NULL,
    idempotency_key TEXT,
    requested_by TEXT NOT NULL,
    sealed BYTEA,
    sealed_kek SMALLINT,
    sealed_until TIMESTAMP WITH TIME ZONE NOT NULL,
    issued_at TIMESTAMP WITH TIME ZONE NOT NULL,
    claimed_at TIMESTAMP WITH TIME ZONE,
    alarmed_at TIMESTAMP WITH TIME ZONE,
    confirmed_at TIMESTAMP WITH TIME ZONE,
    confirmed_by TEXT,
    retire_at TIMESTAMP WITH TIME ZONE,
    paused_at TIMESTAMP WITH TIME ZONE,
    resumed_at TIMESTAMP WITH TIME ZONE,
    retired_at TIMESTAMP WITH TIME ZONE,
    undo_until TIMESTAMP WITH TIME ZONE,
    ended_at TIMESTAMP WITH TIME ZONE,
    cancel_reason TEXT,
    blocked_reason TEXT,
    next_check_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_rotations PRIMARY KEY (id),
    CONSTRAINT ck_rotations_state CHECK (state IN ('issued', 'draining', 'retired', 'completed', 'cancelled')),
    CONSTRAINT ck_rotations_confirmed CHECK (state NOT IN ('draining', 'retired') OR confirmed_at IS NOT NULL),
    CONSTRAINT ck_rotations_sealed CHECK ((sealed IS NULL) = (sealed_kek IS NULL)),
    CONSTRAINT ck_rotations_sealed_only_issued CHECK (sealed IS NULL OR state = 'issued'),
    CONSTRAINT uq_rotations_account_id_idempotency_key UNIQUE (account_id, idempotency_key),
    CONSTRAINT fk_rotations_old_key_id_api_keys FOREIGN KEY(old_key_id) REFERENCES keyturn.api_keys (id),
    CONSTRAINT uq_rotations_new_key_id UNIQUE (new_key_id),
    CONSTRAINT fk_rotations_new_key_id_api_keys FOREIGN KEY(new_key_id) REFERENCES keyturn.api_keys (id)
);

CREATE INDEX ix_rotations_next_check_at ON keyturn.rotations (next_check_at) WHERE state IN ('issued', 'draining', 'retired');

CREATE INDEX ix_rotations_old_key_id ON keyturn.rotations (old_key_id);

CREATE UNIQUE INDEX uq_rotations_open_family ON keyturn.rotations (family_id) WHERE state IN ('issued', 'draining');
