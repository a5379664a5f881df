"""From determinants to the lines of bills: `rate` for columns of accounts, a module a family of charges. Pure."""
