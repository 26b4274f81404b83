/* One administration call a line, for tests. */
#ifndef E2E_ADMIN_H
#define E2E_ADMIN_H

#include "expect.h"
#include "pados.pb-c.h"

static inline pados_status table_get(pados_client *client, const char *table, Pados__V1__Reply **reply,
                                     pados_error *error)
{
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__TableGet get = PADOS__V1__TABLE_GET__INIT;
    get.table = (char *)table;
    request.body_case = PADOS__V1__REQUEST__BODY_TABLE_GET;
    request.table_get = &get;
    return pados_admin(client, &request, reply, error);
}

static inline pados_status wait_for(pados_client *client, pados_status status, Pados__V1__Reply *reply,
                                    pados_error *error)
{
    if (status) return status;
    uint64_t job = reply->job->job, version;
    pados_reply_free(reply);
    return pados_job_wait(client, job, NULL, NULL, &version, error);
}

static inline pados_status publish(pados_client *client, const char *table, uint64_t version,
                                   pados_error *error)
{
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__Publish body = PADOS__V1__PUBLISH__INIT;
    body.table = (char *)table;
    body.version = version;
    request.body_case = PADOS__V1__REQUEST__BODY_PUBLISH;
    request.publish = &body;
    Pados__V1__Reply *reply = NULL;
    pados_status status = pados_admin(client, &request, &reply, error);
    return wait_for(client, status, reply, error);
}

static inline pados_status rollback(pados_client *client, const char *table, pados_error *error)
{
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__Rollback body = PADOS__V1__ROLLBACK__INIT;
    body.table = (char *)table;
    request.body_case = PADOS__V1__REQUEST__BODY_ROLLBACK;
    request.rollback = &body;
    Pados__V1__Reply *reply = NULL;
    pados_status status = pados_admin(client, &request, &reply, error);
    return wait_for(client, status, reply, error);
}

static inline uint64_t serving(pados_client *client, const char *table)
{
    Pados__V1__Reply *reply;
    pados_error error;
    must(table_get(client, table, &reply, &error), error);
    uint64_t version = reply->table->info->serving;
    pados_reply_free(reply);
    return version;
}

#endif
