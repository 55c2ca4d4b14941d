"""The nouns: arms, studies, outcomes, ledger entries, identities and errors. Standard library and pydantic only."""
