"""Payloads: an image of components, its receipt, and how to publish it."""

load("//payload/private:kata_payload.bzl", _kata_payload = "kata_payload", _kata_payloads = "kata_payloads", _payload_name = "payload_name")
load("//payload/private:payload_info.bzl", _PayloadInfo = "PayloadInfo")

PayloadInfo = _PayloadInfo
kata_payload = _kata_payload
kata_payloads = _kata_payloads
payload_name = _payload_name
