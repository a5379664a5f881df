"""Published tables of transformer losses, and which supply goes by one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008_loss_tables"
down_revision: str | None = "0007_billing_whole"
branch_labels: str | None = None
depends_on: str | None = None

_NAMES = ("table_name", "rated_kva", "up_to_kwh")


def upgrade() -> None:
    op.add_column("supply", sa.Column("table_name", sa.Text(), nullable=True))
    op.create_table(
        "loss_row",
        sa.Column("key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("table_name", sa.Text(), nullable=False),
        *[
            sa.Column(name, sa.BigInteger(), nullable=False)
            for name in ("rated_kva", "up_to_kwh", "active_kwh", "reactive_kvarh")
        ],
        sa.PrimaryKeyConstraint("key", name=op.f("pk_loss_row")),
        sa.UniqueConstraint(*_NAMES, name=op.f(f"uq_loss_row_{'_'.join(_NAMES)}")),
    )


def downgrade() -> None:
    op.drop_table("loss_row")
    op.drop_column("supply", "table_name")
