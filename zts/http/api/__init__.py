"""The REST APIs, one file for each group of routes, and their OpenAPI description. Layer 3 unless stated.

A route reads an ``Exchange``, asks the link, and answers. How bytes are read and written is in ``http1`` and
``zts.http.exchange``.
"""
