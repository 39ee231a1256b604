-- How many frames were selected, audited, rejected ... in each generation.
SELECT generation.number AS generation, decision.action, decision.rule, count(*) AS n
FROM decision
JOIN generation ON generation.generation_id = decision.generation_id
GROUP BY generation.number, decision.action, decision.rule
ORDER BY generation.number, n DESC;
