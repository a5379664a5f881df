"""Meters on a serial line may have a speed and character format of their own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003_meter_serial"
down_revision: str | None = "0002_billing"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("meter", sa.Column("serial", sa.Text(), nullable=False, server_default=sa.text("''")))


def downgrade() -> None:
    op.drop_column("meter", "serial")
