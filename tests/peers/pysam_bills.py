"""Bills by the utility rate model of the System Advisor Model: cases as JSON on standard input, charges on output.

A case is one year (8,760 hours, 1 January a Monday) of load in kW and a tariff in Utilityrate5's own form.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import PySAM.Utilityrate5 as Utilityrate5  # only in the peer's environment

_NAMES = {
    "energy": "year1_monthly_ec_charge_without_system",
    "flat": "year1_monthly_dc_fixed_without_system",
    "tou": "year1_monthly_dc_tou_without_system",
    "fixed": "year1_monthly_fixed_without_system",
    "minimum": "year1_monthly_minimum_without_system",
    "total": "year1_monthly_utility_bill_wo_sys",
}


def _bill(case: dict[str, Any]) -> dict[str, list[float]]:
    model = Utilityrate5.new()
    model.Lifetime.analysis_period = 1
    model.Lifetime.inflation_rate = 0
    model.Lifetime.system_use_lifetime_output = 0
    model.SystemOutput.degradation = [0]
    model.SystemOutput.gen = [0] * len(case["load"])
    model.Load.load = case["load"]
    rates = model.ElectricityRates
    rates.en_electricity_rates = 1
    rates.rate_escalation = [0]
    for name in ("ur_en_ts_sell_rate", "ur_en_ts_buy_rate", "ur_sell_eq_buy", "ur_nm_yearend_sell_rate"):
        setattr(rates, name, 0)
    rates.ur_nm_credit_month = 11
    rates.ur_nm_credit_rollover = 0
    rates.ur_annual_min_charge = 0
    rates.ur_ts_sell_rate = rates.ur_ts_buy_rate = [0]
    rates.ur_dc_enable = 1
    rates.ur_enable_billing_demand = 0
    for name, value in case["rates"].items():
        setattr(rates, name, value)
    model.execute()
    return {name: list(getattr(model.Outputs, output)) for name, output in _NAMES.items()}


def main() -> None:
    """Answer every case."""
    json.dump([_bill(case) for case in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
