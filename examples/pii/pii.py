#!/usr/bin/env python3
"""An exec hook that denies requests with personal data: JSON request on stdin, JSON verdict on
stdout.
"""

import json
import re
import sys

PATTERNS = {
    "e-mail address": r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b",
    "payment card": r"\b\d(?:[ -]?\d){12,18}\b",
    "IBAN": r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b",
    "US social security number": r"\b(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}\b",
    "phone number": r"(?<![\w.])\+\d{1,3}[ -]?(?:\(?\d+\)?[ -]?){2,5}\d{2,}\b",
}


def luhn(number: str) -> bool:
    digits = [int(digit) for digit in reversed(re.sub(r"\D", "", number))]
    return sum(digits[0::2] + [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]) % 10 == 0


def kinds(text: str) -> list[str]:
    found = {kind: re.findall(pattern, text) for kind, pattern in PATTERNS.items()}
    found["payment card"] = [number for number in found["payment card"] if luhn(number)]
    return sorted(kind for kind, matches in found.items() if matches)


messages = json.load(sys.stdin)["request"]["Messages"]
seen = kinds("\n".join(message["Content"] for message in messages))
verdict = {"allow": not seen, "metadata": {"kinds": seen}}
if seen:
    verdict["reason"] = "personal data: " + ", ".join(seen)
json.dump(verdict, sys.stdout)
