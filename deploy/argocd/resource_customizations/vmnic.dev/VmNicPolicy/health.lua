-- Health of a VmNicPolicy from its conditions.
local function condition(kind)
  for _, one in ipairs((obj.status or {}).conditions or {}) do
    if one.type == kind then
      return one
    end
  end
  return {}
end

local function health(status, message)
  return { status = status, message = message or "" }
end

if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health("Progressing", "the controller has not looked at it yet")
end
-- VMs that are not as wanted yet are what the policy reports, not a fault of the policy.
for _, kind in ipairs({ "Stalled", "Conflict" }) do
  if condition(kind).status == "True" then
    return health("Degraded", condition(kind).message)
  end
end
if condition("Reconciling").status == "True" then
  return health("Progressing", condition("Compliant").message)
end
if condition("Ready").status == "True" then
  return health("Healthy", condition("Compliant").message)
end
return health("Progressing", condition("Ready").message)
