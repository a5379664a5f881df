"""Documents: bills and account statements as PDF, JSON and CSV. docs/billing.md tells what is in each.

`content.bill_content` gathers what a bill's document shows, once, from the store; `bill_pdf.bill_pdf` draws it. The
same bill and the same ledger give the same bytes.
"""
