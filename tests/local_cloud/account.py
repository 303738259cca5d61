"""The one account and region of a local cloud; moto knows no other."""

ACCOUNT, REGION = "123456789012", "us-east-1"
