CREATE TABLE keyturn.operations (
    id UUID NOT NULL,
    state TEXT NOT NULL,
    selection JSONB NOT NULL,
    facts JSONB NOT NULL,
    keys INTEGER NOT NULL,
    waves INTEGER NOT NULL,
    wave INTEGER DEFAULT 1 NOT NULL,
    planned_by TEXT NOT NULL,
    planned_at TIMESTAMP WITH TIME ZONE NOT NULL,
    plan_until TIMESTAMP WITH TIME ZONE NOT NULL,
    applied_by TEXT,
    applied_at TIMESTAMP WITH TIME ZONE,
    turn_at TIMESTAMP WITH TIME ZONE,
    waits_for TEXT,
    stop_reason TEXT,
    ended_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_operations PRIMARY KEY (id),
    CONSTRAINT ck_operations_state CHECK (state IN ('planned', 'running', 'paused', 'stopped', 'completed', 'cancelled')),
    CONSTRAINT ck_operations_applied CHECK (state NOT IN ('running', 'paused', 'stopped', 'completed') OR applied_at IS NOT NULL),
    CONSTRAINT ck_operations_ended CHECK ((ended_at IS NOT NULL) = (state IN ('completed', 'cancelled')))
);

CREATE INDEX ix_operations_turn_at ON keyturn.operations (turn_at) WHERE state = 'running';

CREATE TABLE keyturn.operation_keys (
    operation_id UUID NOT NULL,
    place INTEGER NOT NULL,
    wave INTEGER,
    key_id UUID NOT NULL,
    account_id UUID NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    rotation_id UUID,
    attempts INTEGER DEFAULT 0 NOT NULL,
    fence INTEGER DEFAULT 0 NOT NULL,
    next_attempt_at TIMESTAMP WITH TIME ZONE NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE,
    accepted BOOLEAN DEFAULT false NOT NULL,
    told BOOLEAN DEFAULT false NOT NULL,
    CONSTRAINT pk_operation_keys PRIMARY KEY (operation_id, place),
    CONSTRAINT uq_operation_keys_key_id_operation_id UNIQUE (key_id, operation_id),
    CONSTRAINT fk_operation_keys_operation_id_operations FOREIGN KEY(operation_id) REFERENCES keyturn.operations (id) ON DELETE CASCADE,
    CONSTRAINT ck_operation_keys_state CHECK (state IN ('left_out', 'waiting', 'issued', 'skipped', 'failed')),
    CONSTRAINT ck_operation_keys_wave CHECK ((wave IS NULL) = (state = 'left_out')),
    CONSTRAINT ck_operation_keys_issued CHECK ((rotation_id IS NOT NULL) = (state = 'issued')),
    CONSTRAINT ck_operation_keys_reason CHECK (reason IS NOT NULL OR state NOT IN ('left_out', 'skipped', 'failed'))
);

CREATE INDEX ix_operation_keys_wave ON keyturn.operation_keys (operation_id, wave, state);

CREATE TABLE keyturn.operation_pace (
    id SMALLINT NOT NULL,
    next_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_operation_pace PRIMARY KEY (id),
    CONSTRAINT ck_operation_pace_one_row CHECK (id = 1)
);
