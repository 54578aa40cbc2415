"""`keyturn demo`: a dozen accounts on the real stack, through public commands and XADD only.

No clock is moved, no row is edited, and the database is never spoken to. What an operator does is
a `keyturn` command; what an identity provider does is an XADD; what the product does is a process
with the library's `Client`.
"""
