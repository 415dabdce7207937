"""The guest's agent: which one an image carries, and what that says about a payload."""

load("//stack/agent/private:agent.bzl", _agent = "agent", _agent_kind = "agent_kind")
load("//stack/agent/private:agent_info.bzl", _AgentInfo = "AgentInfo")

AgentInfo = _AgentInfo
agent = _agent
agent_kind = _agent_kind
